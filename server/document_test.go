package server_test

import (
	"encoding/json"
	"fmt"
	"maps"
	"net/http"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"testing"

	"github.com/getkin/kin-openapi/openapi3"
	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"

	"noted/internal/contract"
	"noted/internal/openapi"
	"noted/server"
	"noted/server/servertest"
)

// documented is one operation of the document.
type documented struct {
	*openapi3.Operation
	method, path string
}

// operationsOf returns the operations of a server's document, those that only read first.
func operationsOf(t *testing.T, env *servertest.Env) (all []documented) {
	t.Helper()
	document, err := contract.Parse(env.Do(t, http.MethodGet, "/openapi.json", "", nil).Body)
	if err != nil {
		t.Fatal(err)
	}
	if err := document.Valid(t.Context()); err != nil {
		t.Error(err)
	}
	for path, item := range document.Paths.Map() {
		for method, op := range item.Operations() {
			all = append(all, documented{op, method, path})
		}
	}
	if len(all) < 60 {
		t.Fatalf("%d operations only", len(all))
	}
	slices.SortFunc(all, func(a, b documented) int { return strings.Compare(a.method+a.path, b.method+b.path) })
	return all
}

// address returns the path and body of the operation's examples. Only a cursor has no example: a server gives it.
func (op documented) address(t *testing.T) (path, body string, headers []string) {
	t.Helper()
	path, query := op.path, url.Values{}
	for _, p := range op.Parameters {
		example := p.Value.Example
		if example == nil && len(p.Value.Schema.Value.Examples) > 0 {
			example = p.Value.Schema.Value.Examples[0]
		}
		switch text := fmt.Sprint(example); {
		case p.Value.Name == "cursor":
		case example == nil:
			t.Errorf("%s: %s has no example", op.OperationID, p.Value.Name)
		case p.Value.In == "path":
			path = strings.ReplaceAll(path, "{"+p.Value.Name+"}", text)
		case p.Value.In == "query":
			query.Set(p.Value.Name, text)
		default:
			headers = append(headers, p.Value.Name, text)
		}
	}
	if len(query) > 0 {
		path += "?" + query.Encode()
	}
	if op.RequestBody == nil {
		return path, "", headers
	}
	for media, content := range op.RequestBody.Value.Content {
		members, _ := content.Example.(map[string]any)
		if len(members) == 0 {
			t.Errorf("%s: its body has no example", op.OperationID)
		}
		headers = append(headers, "Content-Type", media)
		if media == "application/json" {
			text, _ := json.Marshal(members)
			return path, string(text), headers
		}
		form := url.Values{}
		for name, value := range members {
			form.Set(name, fmt.Sprint(value))
		}
		body = form.Encode()
	}
	return path, body, headers
}

func (op documented) send(t *testing.T, env *servertest.Env, token, path, body string, headers ...string) servertest.Answer {
	t.Helper()
	if body == "" {
		return env.Do(t, op.method, path, token, nil, headers...)
	}
	return env.Do(t, op.method, path, token, body, headers...)
}

// exampleWorld is a writeWorld whose things have the examples' ids.
func exampleWorld(t *testing.T, env *servertest.Env) *writeWorld {
	t.Helper()
	w := newWriteWorld(t, env)
	if a := env.Do(t, http.MethodPost, "/auth/device/confirm", w.ada, "decision=approve&user_code="+w.startDevice(t), "Content-Type", "application/x-www-form-urlencoded"); a.Status != http.StatusOK {
		t.Fatalf("letting a device in: %d %s", a.Status, a.Body)
	}
	env.Exec(t, `update device_logins set device_hash = sha256('GmRhmhcxhwAzkoEqiMEg_DnyEysNkuNhszIySk9eS')`)
	env.Exec(t, `update device_logins set user_code = 'WDJBMJHT' where user_code = $1`, strings.ReplaceAll(w.startDevice(t), "-", ""))
	w.prepareLink(t)
	env.Exec(t, `update links set confirm_hash = sha256('dBjftJeZ4CVP-mB92K27uhbUJU1p1r_wW1gFWFOEjXk')`)
	env.Exec(t, `update invitations set token_hash = sha256('noted invitation 0Q3YtR7bVwFzKk2mXcJpLs8dNhGuAe5iTo9rWyBvCf1') where email = 'ada@dev.example'`)
	// References in any column are renamed with an id.
	for kind, id := range map[string]string{
		"orgs": w.org, "notes": w.orgNote, "deadzone": w.dead, "notebooks": w.notebook, "users": w.member, "keys": w.keyID,
		"services": w.orgKey, "invitations": w.invitation, "sessions": w.session, "identities": w.identity,
	} {
		env.Exec(t, fmt.Sprintf(`do $$ declare t record; begin
			set local session_replication_role = replica;
			for t in select table_name, string_agg(format('%%1$I = case when %%1$I = ''%[1]s'' then ''%[2]s'' else %%1$I end', column_name), ', ') as sets
				from information_schema.columns join information_schema.tables using (table_schema, table_name)
				where table_schema = 'public' and table_type = 'BASE TABLE' and data_type = 'uuid' and table_name <> 'audit_events' group by 1
			loop execute format('update %%I set %%s', t.table_name, t.sets); end loop;
		end $$`, id, openapi.ExampleID(kind)))
	}
	return w
}

// saved copies everything except the record, which only grows; again puts it back.
const (
	saved = `do $$ declare t text; begin
		create schema saved;
		for t in select table_name from information_schema.tables where table_schema = 'public' and table_type = 'BASE TABLE' and table_name <> 'audit_events'
		loop execute format('create table saved.%1$I as table public.%1$I', t); end loop;
	end $$`
	again = `do $$ declare t record; begin
		set local session_replication_role = replica;
		for t in select table_name, string_agg(format('%I', column_name), ', ' order by ordinal_position) as names
			from information_schema.columns join information_schema.tables using (table_schema, table_name)
			where table_schema = 'public' and table_type = 'BASE TABLE' and is_generated = 'NEVER' and table_name <> 'audit_events' group by 1
		loop execute format('delete from public.%1$I; insert into public.%1$I (%2$s) select %2$s from saved.%1$I', t.table_name, t.names); end loop;
	end $$`
)

// Every example in the document is accepted as it is, if the things that it names exist.
func TestEveryExampleOfTheDocumentWorks(t *testing.T) {
	t.Parallel()
	env := servertest.New(t)
	w := exampleWorld(t, env)
	env.Exec(t, saved)
	// Only a provider can make what these carry.
	refused := map[string]int{"callback": http.StatusUnauthorized, "backchannel-logout": http.StatusBadRequest}
	for _, op := range operationsOf(t, env) {
		path, body, headers := op.address(t)
		a := op.send(t, env, w.ada, path, body, headers...)
		if want := refused[op.OperationID]; a.Status != want && (want != 0 || a.Status >= 400) {
			t.Errorf("%s: %s %s %s: %d %s", op.OperationID, op.method, path, body, a.Status, a.Body)
		}
		if op.method != http.MethodGet {
			env.Exec(t, again)
		}
	}
}

// Every status that follows from an operation's kind can happen. (Its own statuses are tested by its room, and
// this test does not wait for a stalled body.)
func TestEveryOperationGivesTheStatusesThatItLists(t *testing.T) {
	t.Parallel()
	env := servertest.New(t)
	w := exampleWorld(t, env)
	on := func(policy string) *servertest.Env {
		loaded, err := servertest.LoadPolicy([]byte(policy))
		return servertest.NewOn(t, env.Pool.Config().ConnString(), func(o *server.Options) { o.Policy = servertest.Fixed(t, loaded, err) })
	}
	// Under the first policy ada may do nothing: an admin who purges also reads. Under the second she sees what
	// she may not change.
	const nothing = "p, admin, deadzone:any, purge\np, moderator, policy, read\n"
	lacking, reading := on(nothing+"p, org-reader, org, read\n"), on(nothing+"p, org-admin, org, read\np, org-admin, notebook, read\np, org-admin, note:org, read\n")
	counting := servertest.NewOn(t, env.Pool.Config().ConnString(), func(o *server.Options) { o.Settings.AuthFailuresPerMinute = 1 })
	away := servertest.New(t)
	cutOff(t, away)
	large := strings.Repeat(" ", 8<<20)
	for _, op := range operationsOf(t, env) {
		if !strings.HasPrefix(op.path, "/v1/") {
			continue
		}
		path, body, headers := op.address(t)
		nowhere := op.path
		for _, p := range op.Parameters {
			nowhere = strings.ReplaceAll(nowhere, "{"+p.Value.Name+"}", uuid.NewString())
		}
		bare, _, _ := strings.Cut(path, "?")
		ways := map[int]func() servertest.Answer{
			400: func() servertest.Answer { return op.send(t, env, w.ada, bare+"?%zz", body) },
			401: func() servertest.Answer { return op.send(t, env, "", path, body) },
			403: func() servertest.Answer {
				if a := op.send(t, reading, w.ada, bare, body); a.Status == http.StatusForbidden {
					return a
				}
				return op.send(t, lacking, w.ada, bare, body)
			},
			404: func() servertest.Answer { return op.send(t, env, w.ada, nowhere, body) },
			412: func() servertest.Answer { return op.send(t, env, w.ada, bare, body, "If-Match", `"99"`) },
			413: func() servertest.Answer { return op.send(t, env, w.ada, bare, large) },
			415: func() servertest.Answer { return op.send(t, env, w.ada, bare, body, "Content-Type", "text/plain") },
			422: func() servertest.Answer { return op.send(t, env, w.ada, bare+"?nothing=1", body) },
			429: func() servertest.Answer {
				op.send(t, counting, "wrong", path, body)
				return op.send(t, counting, "wrong", path, body)
			},
			503: func() servertest.Answer { return op.send(t, away, w.ada, path, body, headers...) },
		}
		for _, status := range slices.Sorted(maps.Keys(ways)) {
			if op.Responses.Value(strconv.Itoa(status)) == nil || status == http.StatusNotFound && nowhere == op.path {
				continue
			}
			if a := ways[status](); a.Status != status {
				t.Errorf("%s %s lists %d, and answers %d %.200s", op.method, op.path, status, a.Status, a.Body)
			}
		}
	}
}

// cutOff disconnects a server from its database.
func cutOff(t *testing.T, env *servertest.Env) {
	t.Helper()
	config := env.Pool.Config().ConnConfig.Copy()
	name := config.Database
	config.Database = "postgres"
	admin, err := pgx.ConnectConfig(t.Context(), config)
	if err != nil {
		t.Fatal(err)
	}
	defer admin.Close(t.Context())
	for _, statement := range []string{
		`alter database ` + name + ` allow_connections false`,
		`select pg_terminate_backend(pid, 5000) from pg_stat_activity where datname = '` + name + `'`,
	} {
		if _, err := admin.Exec(t.Context(), statement); err != nil {
			t.Fatal(err)
		}
	}
}

// Clients are generated from it: an id is a UUID, a time is a time, a list is never null, a problem is a problem.
func TestTheDocumentNamesTypesThatClientsCanUse(t *testing.T) {
	t.Parallel()
	env := servertest.New(t)
	document, err := contract.Parse(env.Do(t, http.MethodGet, "/openapi.json", "", nil).Body)
	if err != nil {
		t.Fatal(err)
	}
	others := []string{"ProviderItem.id", "Item.request_id"} // words that an operator or a client chose
	for name, schema := range document.Components.Schemas {
		for member, property := range schema.Value.Properties {
			format := ""
			switch {
			case slices.Contains(others, name+"."+member):
			case member == "id" || strings.HasSuffix(member, "_id"):
				format = "uuid"
			case member == "at" || strings.HasSuffix(member, "_at"):
				format = "date-time"
			}
			if format != "" && property.Value.Format != format {
				t.Errorf("%s.%s is of the format %q, want %s", name, member, property.Value.Format, format)
			}
			if property.Value.Type.Includes("array") && property.Value.Type.IncludesNull() {
				t.Errorf("%s.%s is a list that may be null", name, member)
			}
		}
	}
	for _, op := range operationsOf(t, env) {
		for status, response := range op.Responses.Map() {
			problem := response.Value.Content["application/problem+json"]
			oauth := status == "400" && response.Value.Content["application/json"] != nil
			if status[0] >= '4' && !oauth && (problem == nil || problem.Schema.Ref != "#/components/schemas/Error") {
				t.Errorf("%s: %s is no problem", op.OperationID, status)
			}
		}
	}
}
