-- +goose Up

-- Organizations. A deleted one stays for as long as notes of it wait in the Dead Zone.
create table orgs (
    id         uuid primary key,
    name       text not null check (char_length(name) between 1 and 200),
    created_at timestamptz not null default now(),
    deleted_at timestamptz
);

create table members (
    org_id    uuid not null references orgs,
    user_id   uuid not null references users,
    role      text not null check (role in ('admin', 'writer', 'reader')),
    joined_at timestamptz not null default now(),
    primary key (org_id, user_id)
);
create index members_user on members (user_id);

-- An invitation counts once, for one verified e-mail. Only the token's hash is stored.
create table invitations (
    id          uuid primary key,
    org_id      uuid not null references orgs,
    email       text not null check (email = lower(email) and char_length(email) between 3 and 320),
    role        text not null check (role in ('admin', 'writer', 'reader')),
    token_hash  bytea not null unique check (octet_length(token_hash) = 32),
    -- Who invites, a member or a service: an invitation is worth what its maker still is.
    created_by  uuid references users,
    created_key uuid references keys on delete cascade,
    created_at  timestamptz not null default now(),
    expires_at  timestamptz not null,
    accepted_at timestamptz,
    revoked_at  timestamptz,
    check ((created_by is null) = (created_key is not null))
);
create index invitations_org on invitations (org_id, created_at desc, id desc);
create index invitations_made on invitations (created_by, created_at);

create table notebooks (
    id         uuid primary key,
    org_id     uuid not null references orgs,
    name       text not null check (char_length(name) between 1 and 200),
    restricted boolean not null default false,
    created_at timestamptz not null default now(),
    unique (org_id, id)
);
create index notebooks_org on notebooks (org_id, created_at desc, id desc);

-- A service key belongs to an organization and to no person.
alter table keys
    alter column user_id drop not null,
    add column org_id uuid references orgs,
    add column org_role text check (org_role in ('admin', 'writer', 'reader')),
    add constraint keys_owner check (
        (user_id is null) = (org_id is not null) and (org_id is null) = (org_role is null));
create index keys_org on keys (org_id, created_at desc, id desc) where org_id is not null and revoked_at is null;

-- A note of an organization stands in one of its notebooks or in none; that both are of one
-- organization the foreign key holds. A service's note has its key for an owner.
alter table notes
    alter column owner_id drop not null,
    add column owner_key uuid references keys,
    add column deleted_by_key uuid references keys,
    drop constraint notes_check,
    add column org_id uuid references orgs,
    add column notebook_id uuid,
    add constraint notes_org_id unique (org_id, id),
    add constraint notes_notebook foreign key (org_id, notebook_id) references notebooks (org_id, id),
    add constraint notes_owner_one check ((owner_id is null) = (owner_key is not null)),
    add constraint notes_owner_org check (owner_key is null or org_id is not null),
    add constraint notes_deleted_by check (
        (deleted_at is null) = (deleted_by is null and deleted_by_key is null) and (deleted_by is null or deleted_by_key is null)),
    add constraint notes_notebook_org check (notebook_id is null or org_id is not null);
create index notes_org on notes (org_id, updated_at desc, id desc) where deleted_at is null and org_id is not null;
create index notes_notebook_live on notes (notebook_id, updated_at desc, id desc) where deleted_at is null and notebook_id is not null;

-- Grants on one notebook or one note, to members alone: they end with the membership.
create table grants (
    org_id      uuid not null,
    user_id     uuid not null,
    notebook_id uuid,
    note_id     uuid,
    access      text not null check (access in ('read', 'write')),
    created_at  timestamptz not null default now(),
    check ((notebook_id is null) <> (note_id is null)),
    foreign key (org_id, user_id) references members (org_id, user_id) on delete cascade,
    foreign key (org_id, notebook_id) references notebooks (org_id, id) on delete cascade,
    foreign key (org_id, note_id) references notes (org_id, id) on delete cascade,
    unique nulls not distinct (user_id, notebook_id, note_id)
);
create index grants_notebook on grants (notebook_id) where notebook_id is not null;
create index grants_note on grants (note_id) where note_id is not null;

create index audit_events_org on audit_events (org_id, at desc, id desc) where org_id is not null;

-- What other rooms may know: who holds which role where, which organizations there are, and the
-- names of services.
create view memberships as select org_id, user_id, role from members;
create view organizations as select id as org_id, name, deleted_at is not null as deleted from orgs;
create view services as
select
    id as key_id, name, org_id, org_role, role as key_role, created_at,
    revoked_at is null and exists (select from key_secrets x where x.key_id = keys.id and x.expires_at > now()) as live
from keys where org_id is not null;

-- +goose Down
drop view memberships, organizations, services;
drop index audit_events_org;
drop table grants;
alter table notes
    drop constraint notes_deleted_by, drop constraint notes_notebook_org, drop constraint notes_owner_org, drop constraint notes_owner_one,
    drop constraint notes_notebook, drop constraint notes_org_id,
    drop column notebook_id, drop column org_id, drop column owner_key, drop column deleted_by_key,
    add constraint notes_check check ((deleted_at is null) = (deleted_by is null)),
    alter column owner_id set not null;
alter table keys drop constraint keys_owner, drop column org_role, drop column org_id, alter column user_id set not null;
drop table notebooks, invitations, members, orgs;
