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

-- +goose Down
alter table notes drop constraint notes_title;
alter table keys drop constraint keys_name;
alter table notebooks drop constraint notebooks_name;
alter table orgs drop constraint orgs_name;
alter table users drop constraint users_name;
drop function refused_in_names;
