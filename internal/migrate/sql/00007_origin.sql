-- +goose Up

-- How a session began: by a sign-in in a browser, by somebody's approval of a device, by the exchange
-- of an ID token. What was derived derives nothing itself: only a browser's lets devices in and links
-- sign-ins. The default is for what an older replica begins during an upgrade: it derives nothing.
alter table sessions add column origin text not null default 'exchange' check (origin in ('browser', 'device', 'exchange'));
-- Of those there are, a browser's alone keeps its ID token while it lives. A device's ends no later
-- than the sign-in that it shares with the session that approved it.
update sessions s set
    origin = case
        when id_token is not null then 'browser'
        when exists (select from device_logins d where d.session_id = s.id) or signed_in_at < created_at then 'device'
        else 'exchange' end,
    expires_at = least(expires_at, signed_in_at + (expires_at - created_at));

-- A person's e-mail, as others see it, is one that a provider has verified.
update users u set email = (
    select i.email from identities i where i.user_id = u.id and i.email_verified and i.email is not null
    order by i.signed_in_at desc, i.id desc limit 1);

-- Whose device logins count together: an address, of IPv6 its /64. Those of older replicas count for
-- nobody.
alter table device_logins add column network text not null default '';
create index device_logins_waiting on device_logins (network, expires_at) where decided_at is null;

-- +goose Down
alter table device_logins drop column network;
alter table sessions drop column origin;
