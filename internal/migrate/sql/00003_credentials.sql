-- +goose Up

-- Replicas remember for a second at most who a credential is. Whatever may end one, or change what
-- it is allowed, tells them to forget at once: triggers, so that no statement can leave it out.
-- +goose StatementBegin
create function credentials_changed() returns trigger language plpgsql as $$
begin
    perform pg_notify('noted_credentials', '');
    return null;
end
$$;
-- +goose StatementEnd
create trigger users_changed after update of name, email, locked_at on users
    for each statement execute function credentials_changed();
create trigger identities_changed after insert or update or delete on identities
    for each statement execute function credentials_changed();
create trigger sessions_changed after update of user_id, identity_id, token_hash, expires_at, ended_at or delete on sessions
    for each statement execute function credentials_changed();
create trigger keys_changed after update of user_id, role, revoked_at or delete on keys
    for each statement execute function credentials_changed();
create trigger key_secrets_changed after insert or update or delete on key_secrets
    for each statement execute function credentials_changed();

-- When its owner was last warned, in the log, that a key stops soon.
alter table keys add column warned_at timestamptz;

-- +goose Down
alter table keys drop column warned_at;
drop trigger key_secrets_changed on key_secrets;
drop trigger keys_changed on keys;
drop trigger sessions_changed on sessions;
drop trigger identities_changed on identities;
drop trigger users_changed on users;
drop function credentials_changed();
