-- +goose Up

-- What package name refuses in names, for the tables that keep them: controls, separators of lines
-- and paragraphs, and what turns the direction of text.
-- +goose StatementBegin
create function refused_in_names() returns text immutable language sql as
$$ select '[\u0001-\u001f\u007f-\u009f\u2028\u2029\u202a-\u202e\u2066-\u2069]' $$;
-- +goose StatementEnd
update users set name = coalesce(nullif(btrim(regexp_replace(name, refused_in_names(), ' ', 'g')), ''), 'unnamed') where name ~ refused_in_names();
update orgs set name = coalesce(nullif(btrim(regexp_replace(name, refused_in_names(), ' ', 'g')), ''), 'unnamed') where name ~ refused_in_names();
update notebooks set name = coalesce(nullif(btrim(regexp_replace(name, refused_in_names(), ' ', 'g')), ''), 'unnamed') where name ~ refused_in_names();
update keys set name = coalesce(nullif(btrim(regexp_replace(name, refused_in_names(), ' ', 'g')), ''), 'unnamed') where name ~ refused_in_names();
update notes set title = coalesce(nullif(btrim(regexp_replace(title, refused_in_names(), ' ', 'g')), ''), 'untitled') where title ~ refused_in_names();
alter table users add constraint users_name check (name !~ refused_in_names());
alter table orgs add constraint orgs_name check (name !~ refused_in_names());
alter table notebooks add constraint notebooks_name check (name !~ refused_in_names());
alter table keys add constraint keys_name check (name !~ refused_in_names());
alter table notes add constraint notes_title check (title !~ refused_in_names());

-- What somebody did lately of which there is a limit: mails sent, organizations made. who is a
-- person or an organization, and no foreign key: the count outlives what it counts.
create table counts (
    what  text not null check (what in ('mail', 'org')),
    who   uuid not null,
    times timestamptz[] not null check (cardinality(times) > 0),
    primary key (what, who)
);

-- Who knows a secret: the person to whom it was shown.
alter table key_secrets add column minted_by uuid references users;
update key_secrets x set minted_by = k.created_by from keys k where k.id = x.key_id;
alter table key_secrets alter column minted_by set not null;
create index key_secrets_minted on key_secrets (minted_by);

-- What other rooms may know: the keys that work, of people and of organizations.
create view live_keys as
select id as key_id, role as key_role, org_role
from keys k where revoked_at is null and exists (select from key_secrets x where x.key_id = k.id and x.expires_at > clock_timestamp());

-- An invitation is worth what the key still is by which it was made, a person's too; behind a
-- service's is the person to whom its secret was shown.
alter table invitations drop constraint invitations_check;
alter table invitations
    add constraint invitations_maker check (created_by is not null or created_key is not null),
    add column behind uuid references users;
update invitations i set behind = coalesce(created_by, (select k.created_by from keys k where k.id = i.created_key));
alter table invitations alter column behind set not null;

-- +goose Down
update invitations set created_key = null where created_by is not null;
alter table invitations
    drop column behind, drop constraint invitations_maker,
    add constraint invitations_check check ((created_by is null) = (created_key is not null));
drop view live_keys;
drop index key_secrets_minted;
alter table key_secrets drop column minted_by;
drop table counts;
alter table notes drop constraint notes_title;
alter table keys drop constraint keys_name;
alter table notebooks drop constraint notebooks_name;
alter table orgs drop constraint orgs_name;
alter table users drop constraint users_name;
drop function refused_in_names;
