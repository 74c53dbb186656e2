-- +goose Up

-- People. A user is found by their identities, never by e-mail; name and email
-- are what the last sign-in showed, for display only.
create table users (
    id              uuid primary key,
    name            text not null check (char_length(name) between 1 and 255),
    email           text check (char_length(email) between 1 and 320),
    locked_at       timestamptz,
    created_at      timestamptz not null default now(),
    last_sign_in_at timestamptz
);

-- One row for each (configured issuer, subject). What the signed token said at the
-- last sign-in stands here, since names in policy.csv are made from it.
create table identities (
    id             uuid primary key,
    user_id        uuid not null references users,
    issuer         text not null check (issuer <> ''),
    subject        text not null check (octet_length(subject) between 1 and 255),
    email          text,
    email_verified boolean not null default false,
    groups         text[] not null default '{}',
    created_at     timestamptz not null default now(),
    signed_in_at   timestamptz not null default now(),
    unique (issuer, subject)
);
create index identities_user on identities (user_id);

-- What other rooms may know of a person: identity publishes it, they join it.
create view people as
select
    u.id as user_id, u.name, coalesce(u.email, '') as email, u.locked_at is not null as locked,
    u.created_at, u.last_sign_in_at, coalesce(u.last_sign_in_at, u.created_at) as seen_at,
    (
        select coalesce(jsonb_agg(jsonb_build_object(
            'issuer', i.issuer, 'subject', i.subject, 'email', coalesce(i.email, ''),
            'email_verified', i.email_verified, 'groups', i.groups,
            'age_seconds', extract(epoch from now() - i.signed_in_at))), '[]')
        from identities i where i.user_id = u.id
    ) as identities
from users u;

-- Sessions stay until their absolute end, ended ones too, so that the log can tell
-- an ended session from one that never was.
create table sessions (
    id           uuid primary key,
    user_id      uuid not null references users,
    identity_id  uuid not null references identities,
    token_hash   bytea not null unique check (octet_length(token_hash) = 32),
    created_at   timestamptz not null default now(),
    last_used_at timestamptz not null default now(),
    expires_at   timestamptz not null,
    ended_at     timestamptz,
    ip           inet,
    user_agent   text not null default '',
    -- For the provider's end_session_endpoint; gone when the session ends.
    id_token     text,
    check (ended_at is null or id_token is null)
);
create index sessions_user on sessions (user_id, created_at desc, id desc);
create index sessions_expires on sessions (expires_at);

-- API keys. Revoked ones stay, so that the log can say why one was refused.
create table keys (
    id           uuid primary key,
    user_id      uuid not null references users,
    name         text not null check (char_length(name) between 1 and 100),
    role         text not null check (role like 'key-%'),
    created_by   uuid not null references users,
    created_at   timestamptz not null default now(),
    revoked_at   timestamptz,
    last_used_at timestamptz,
    last_used_ip inet
);
create index keys_user on keys (user_id, created_at desc, id desc) where revoked_at is null;

-- A key's secrets, by hash: 256 random bits need no slow hash.
create table key_secrets (
    id         uuid primary key,
    key_id     uuid not null references keys on delete cascade,
    hash       bytea not null check (octet_length(hash) = 32),
    created_at timestamptz not null default now(),
    expires_at timestamptz not null,
    check (expires_at > created_at)
);
create index key_secrets_key on key_secrets (key_id);

-- Notes. One with deleted_at is in the Dead Zone.
create table notes (
    id         uuid primary key,
    owner_id   uuid not null references users,
    title      text not null check (char_length(title) between 1 and 200),
    body       text not null check (octet_length(body) <= 1048576),
    version    bigint not null default 1 check (version > 0),
    created_at timestamptz not null default now(),
    updated_at timestamptz not null default now(),
    deleted_at timestamptz,
    deleted_by uuid references users,
    check ((deleted_at is null) = (deleted_by is null))
);
create index notes_owner on notes (owner_id, updated_at desc, id desc) where deleted_at is null;
create index notes_live on notes (updated_at desc, id desc) where deleted_at is null;
create index notes_dead on notes (deleted_at desc, id desc) where deleted_at is not null;
create index notes_dead_owner on notes (owner_id, deleted_at desc, id desc) where deleted_at is not null;

-- The security record. It only grows: the triggers below refuse all else, whoever asks.
create table audit_events (
    id         uuid primary key,
    at         timestamptz not null default now(),
    actor_kind text check (actor_kind in ('user', 'service')),
    actor_id   uuid,
    actor_name text,
    action     text not null check (action <> ''),
    object     text not null,
    target     text not null,
    org_id     uuid,
    outcome    text not null check (outcome in ('success', 'failure')),
    ip         inet,
    request_id text not null default '',
    detail     text not null default '',
    check ((actor_id is null) = (actor_kind is null) and (actor_id is null) = (actor_name is null))
);
create index audit_events_at on audit_events (at desc, id desc);
create index audit_events_actor on audit_events (actor_id, at desc, id desc);
create index audit_events_action on audit_events (action, at desc, id desc);

-- +goose StatementBegin
create function audit_events_refuse() returns trigger language plpgsql as $$
begin
    raise exception 'audit_events is append-only: % refused', tg_op using errcode = 'insufficient_privilege';
end
$$;
-- +goose StatementEnd
create trigger audit_events_append_only before update or delete or truncate on audit_events
    for each statement execute function audit_events_refuse();
alter table audit_events enable always trigger audit_events_append_only;

-- The last time that a failure of a known user or key was written to audit_events.
create table audit_failures (
    subject text primary key,
    last_at timestamptz not null
);

-- +goose Down
drop view people;
drop table audit_failures, audit_events, notes, key_secrets, keys, sessions, identities, users;
drop function audit_events_refuse;
