-- +goose Up

-- The credential that acted: a session or a key. Null where the server did it, or nobody who was let in.
-- by_staff: nothing but a permission on everybody's things allowed it, so that an organization is not shown
-- from where it was done. Null in rows of a time when that was not noted.
alter table audit_events
    add column via_kind text,
    add column via_id uuid,
    add column by_staff boolean,
    add constraint audit_events_via check ((via_id is null) = (via_kind is null) and via_kind in ('session', 'key'));
create index audit_events_via on audit_events (via_id, at desc, id desc) where via_id is not null;

-- A subject is object:target:reason from now on; what was noted without a reason is of no use.
delete from audit_failures;

-- +goose Down
drop index audit_events_via;
alter table audit_events drop constraint audit_events_via, drop column by_staff, drop column via_id, drop column via_kind;
