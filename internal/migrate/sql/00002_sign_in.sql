-- +goose Up

-- What the ID token of the last sign-in carried: {"names": [...], "values": {...}}, the values
-- of the claims alone that the configuration names.
alter table identities add column claims jsonb not null default '{}';

-- An identity may be unlinked; the sessions that it began end with it and stay for the log.
alter table sessions
    alter column identity_id drop not null,
    drop constraint sessions_identity_id_fkey,
    add constraint sessions_identity_id_fkey foreign key (identity_id) references identities on delete set null,
    -- The provider's name for its own session (the claim sid), also of what came from it.
    add column provider_sid text,
    -- When the person was last at the provider; a device's session has that of the session that
    -- approved it.
    add column signed_in_at timestamptz not null default now(),
    add constraint sessions_identity check (identity_id is not null or ended_at is not null);
create index sessions_identity on sessions (identity_id);
create index sessions_provider_sid on sessions (provider_sid) where provider_sid is not null;

-- Tokens of a provider that count once, by a SHA-256 that names kind and token, and sign-ins
-- that a back-channel logout ended: no token of them begins a session any more.
create table spent_tokens (
    hash      bytea primary key check (octet_length(hash) = 32),
    -- Of a logout: the iat of its token. ID tokens that are older do not count.
    issued_at timestamptz,
    forget_at timestamptz not null
);
create index spent_tokens_forget on spent_tokens (forget_at);

-- Device logins under way (RFC 8628). Approving one makes its session, whose token nobody
-- has until the device fetches it, so that whatever ends sessions ends this one too.
create table device_logins (
    device_hash   bytea primary key check (octet_length(device_hash) = 32),
    user_code     text not null unique,
    created_at    timestamptz not null default now(),
    expires_at    timestamptz not null,
    poll_seconds  integer not null default 5,
    polled_at     timestamptz,
    ip            inet,
    user_agent    text not null default '',
    decided_at    timestamptz,
    session_id    uuid references sessions on delete cascade,
    fetched_at    timestamptz,
    check (session_id is null or decided_at is not null),
    check (fetched_at is null or session_id is not null)
);
create index device_logins_expires on device_logins (expires_at);

-- Wrong user codes, by who typed them.
create table device_guesses (
    user_id uuid not null references users on delete cascade,
    at      timestamptz not null default now()
);
create index device_guesses_user on device_guesses (user_id, at);

-- The linking that a session has begun, one at most. sign_in is what the provider signed, once
-- it has; the form that confirms it carries the code that confirm_hash is of.
create table links (
    session_id   uuid primary key references sessions on delete cascade,
    state_hash   bytea not null unique check (octet_length(state_hash) = 32),
    provider     text not null,
    nonce        text not null,
    verifier     text not null,
    expires_at   timestamptz not null,
    sign_in      jsonb,
    confirm_hash bytea check (octet_length(confirm_hash) = 32),
    check ((sign_in is null) = (confirm_hash is null))
);

-- +goose Down
drop table links, device_guesses, device_logins, spent_tokens;
alter table sessions drop constraint sessions_identity, drop column provider_sid, drop column signed_in_at;
delete from sessions where identity_id is null;
alter table sessions
    drop constraint sessions_identity_id_fkey,
    add constraint sessions_identity_id_fkey foreign key (identity_id) references identities,
    alter column identity_id set not null;
drop index sessions_identity;
alter table identities drop column claims;
