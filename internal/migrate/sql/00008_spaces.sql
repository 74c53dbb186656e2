-- +goose Up

-- A space is what is kept together: a person's own notes, or all that is an organization's. Its id
-- is the person's or the organization's. It leads every key of what stands in one, so that a
-- database that is spread over machines keeps each space on one of them. One subcommand to each
-- alter table, since such a database takes no more.
--
-- A table below one of these needs no check: its foreign key (space_id, note_id) holds its space.

-- What is made anew further down, first: the update has no index to maintain.
alter table grants drop constraint grants_org_id_note_id_fkey;
alter table grants drop constraint grants_org_id_notebook_id_fkey;
alter table grants drop constraint grants_org_id_user_id_fkey;
alter table grants drop constraint grants_user_id_notebook_id_note_id_key;
alter table notes drop constraint notes_notebook;
alter table notes drop constraint notes_org_id;
alter table notes drop constraint notes_pkey;
alter table notebooks drop constraint notebooks_org_id_id_key;
alter table notebooks drop constraint notebooks_pkey;
drop index grants_note;
drop index grants_notebook;
drop index notes_owner;
drop index notes_org;
drop index notes_notebook_live;
drop index notes_live;
drop index notes_dead;
drop index notes_dead_owner;
drop index notebooks_org;

alter table notebooks add column space_id uuid;
update notebooks set space_id = org_id;
alter table notebooks alter column space_id set not null;
alter table notebooks add constraint notebooks_space check (space_id = org_id);
alter table notebooks add primary key (space_id, id);
create index notebooks_space_list on notebooks (space_id, created_at desc, id desc);
-- Whoever has an id and no space asks by this. It is not unique: a database that is spread over machines has
-- no such index, and the 46 random bits beside the time make sure of it.
create index notebooks_id on notebooks (id);

-- A service's note has its key for an owner, and always an organization (notes_owner_org), so that
-- no note is without a space.
alter table notes add column space_id uuid;
update notes set space_id = coalesce(org_id, owner_id);
alter table notes alter column space_id set not null;
alter table notes add constraint notes_space check (space_id = coalesce(org_id, owner_id));
alter table notes add primary key (space_id, id);
alter table notes add constraint notes_notebook foreign key (space_id, notebook_id) references notebooks (space_id, id);
create index notes_id on notes (id);
create index notes_space_live on notes (space_id, updated_at desc, id desc) where deleted_at is null;
create index notes_notebook_live on notes (space_id, notebook_id, updated_at desc, id desc) where deleted_at is null and notebook_id is not null;
create index notes_space_dead on notes (space_id, deleted_at desc, id desc) where deleted_at is not null;
-- For what goes through all spaces: staff's lists and the purge.
create index notes_live on notes (updated_at desc, id desc) where deleted_at is null;
create index notes_dead on notes (deleted_at desc, id desc) where deleted_at is not null;

-- Grants are an organization's alone; that is their space.
alter table grants rename column org_id to space_id;
alter table grants add constraint grants_member foreign key (space_id, user_id) references members (org_id, user_id) on delete cascade;
alter table grants add constraint grants_on_notebook foreign key (space_id, notebook_id) references notebooks (space_id, id) on delete cascade;
alter table grants add constraint grants_on_note foreign key (space_id, note_id) references notes (space_id, id) on delete cascade;
alter table grants add constraint grants_once unique nulls not distinct (space_id, user_id, notebook_id, note_id);
create index grants_notebook on grants (space_id, notebook_id) where notebook_id is not null;
create index grants_note on grants (space_id, note_id) where note_id is not null;

-- What is known of the new columns, which the first requests are planned by.
analyze notebooks;
analyze notes;
analyze grants;

-- +goose Down
drop index grants_note;
drop index grants_notebook;
alter table grants drop constraint grants_once;
alter table grants drop constraint grants_on_note;
alter table grants drop constraint grants_on_notebook;
alter table grants drop constraint grants_member;
alter table notes drop constraint notes_notebook;
drop index notes_dead;
drop index notes_live;
drop index notes_space_dead;
drop index notes_notebook_live;
drop index notes_space_live;
drop index notes_id;
alter table notes drop constraint notes_pkey;
alter table notes drop constraint notes_space;
alter table notes drop column space_id;
drop index notebooks_id;
drop index notebooks_space_list;
alter table notebooks drop constraint notebooks_pkey;
alter table notebooks drop constraint notebooks_space;
alter table notebooks drop column space_id;

alter table notebooks add primary key (id);
alter table notebooks add unique (org_id, id);
create index notebooks_org on notebooks (org_id, created_at desc, id desc);
alter table notes add primary key (id);
alter table notes add constraint notes_org_id unique (org_id, id);
alter table notes add constraint notes_notebook foreign key (org_id, notebook_id) references notebooks (org_id, id);
create index notes_owner on notes (owner_id, updated_at desc, id desc) where deleted_at is null;
create index notes_org on notes (org_id, updated_at desc, id desc) where deleted_at is null and org_id is not null;
create index notes_notebook_live on notes (notebook_id, updated_at desc, id desc) where deleted_at is null and notebook_id is not null;
create index notes_live on notes (updated_at desc, id desc) where deleted_at is null;
create index notes_dead on notes (deleted_at desc, id desc) where deleted_at is not null;
create index notes_dead_owner on notes (owner_id, deleted_at desc, id desc) where deleted_at is not null;
alter table grants rename column space_id to org_id;
alter table grants add foreign key (org_id, user_id) references members (org_id, user_id) on delete cascade;
alter table grants add foreign key (org_id, notebook_id) references notebooks (org_id, id) on delete cascade;
alter table grants add foreign key (org_id, note_id) references notes (org_id, id) on delete cascade;
alter table grants add unique nulls not distinct (user_id, notebook_id, note_id);
create index grants_notebook on grants (notebook_id) where notebook_id is not null;
create index grants_note on grants (note_id) where note_id is not null;
