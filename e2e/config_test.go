package e2e

import (
	"fmt"
	"net/http"
	"regexp"
	"strings"
	"syscall"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/jackc/pgx/v5"

	"noted/internal/localpg/pgtest"
)

// goodConfig is a working configuration. Every case of TestServeRefuses… changes one thing in it, so that only
// that can be refused. The cases contain its line numbers.
const goodConfig = `listen: 127.0.0.1:0
public_url: https://notes.example
database_url: "%s"
policy: policy.csv
trusted_proxies: [127.0.0.1/32]
session_idle: 24h
providers:
  - id: corp
    name: The company
    issuer: https://login.example
    client_id: noted
    client_secret: hunter2-hunter2
    allow_everyone: true
`

// secondProvider is another working one, to append.
const secondProvider = `
  - {id: other, issuer: "https://other.example", client_id: noted, client_secret: hunter2-hunter2, allow_everyone: true}
`

// change replaces one piece of a file; the piece must occur exactly once.
type change struct{ from, to string }

func (c change) in(t *testing.T, text string) string {
	t.Helper()
	if strings.Count(text, c.from) != 1 {
		t.Fatalf("%q is there %d times", c.from, strings.Count(text, c.from))
	}
	return strings.Replace(text, c.from, c.to, 1)
}

// configCase is one changed thing.
type configCase struct {
	name     string
	config   []change
	policy   string // added to the policy
	noPolicy bool   // the policy as shipped: nobody is an admin
	file     string // another configuration file
	env      []string
	flags    []string
	want     []string // what standard error must contain; nothing: it starts
}

// startConfig writes the files of a case and starts the binary on them.
func startConfig(t *testing.T, c configCase, databaseURL string) *process {
	t.Helper()
	dir := publicFolder(t, nil)
	config := fmt.Sprintf(goodConfig, databaseURL)
	for _, change := range c.config {
		config = change.in(t, config)
	}
	policy := shipped(t, "policy.csv")
	if !c.noPolicy {
		policy += "g, corp:ada, admin\n"
	}
	writeFile(t, dir, "noted.yaml", config)
	writeFile(t, dir, "policy.csv", policy+c.policy)
	if c.file == "" {
		c.file = "noted.yaml"
	}
	return start(t, command{args: append([]string{"serve", "--config", c.file}, c.flags...), env: c.env, dir: dir})
}

// serving reports whether it has started anyway.
func serving(p *process) bool { return strings.Contains(p.stderr.String(), `"msg":"serving"`) }

// wantRefusal waits for the end of a process that must refuse to start, and returns its error.
func wantRefusal(t *testing.T, p *process) (text string) {
	t.Helper()
	eventually(t, exitLimit, "it ends or serves", func() bool { return p.ended() || serving(p) })
	if serving(p) {
		t.Fatal("it serves, and should have refused to start")
	}
	if code := p.exit(t); code == 0 {
		t.Error("exit code 0")
	}
	text = p.stderr.String()
	if match := stackTrace.FindString(text); match != "" {
		t.Errorf("the error shows %q, which is no news for an operator: %s", match, text)
	}
	if strings.Contains(text, "hunter2") {
		t.Errorf("the error shows a secret: %s", text)
	}
	return text
}

// policyLine returns the number of the line that a case adds to the policy.
func policyLine(t *testing.T) int {
	t.Helper()
	return strings.Count(shipped(t, "policy.csv"), "\n") + 2 // after ada's
}

var stackTrace = regexp.MustCompile(`goroutine \d+|panic:|\.go:\d+`)

func TestServeRefusesAConfigurationThatCannotWorkAndSaysWhere(t *testing.T) {
	t.Parallel()
	databaseURL := pgtest.URL(t)
	added := fmt.Sprintf("policy.csv:%d", policyLine(t))
	const last = "    allow_everyone: true\n"
	cases := []configCase{
		// The file.
		{name: "an unknown setting", config: []change{{"policy: policy.csv\n", "policy: policy.csv\ncolour: red\n"}}, want: []string{"noted.yaml:5:1", "colour"}},
		{name: "a setting with a slip of the pen", config: []change{{"public_url:", "publik_url:"}}, want: []string{"noted.yaml:2:1", "publik_url", "did you mean public_url?"}},
		{name: "a setting spelt as its flag", config: []change{{"session_idle:", "session-idle:"}}, want: []string{"noted.yaml:6:1", "session-idle", "did you mean session_idle?"}},
		{name: "a setting in capitals", config: []change{{"session_idle:", "Session_Idle:"}}, want: []string{"noted.yaml:6:1", "Session_Idle"}},
		{name: "a number that is a word", config: []change{{"session_idle: 24h", "auth_failures_per_minute: lots"}}, want: []string{"noted.yaml:6:27"}},
		{name: "a truth that is a number", config: []change{{"session_idle: 24h", "allow_no_admin: 3"}}, want: []string{"noted.yaml:6:17"}},
		{name: "a list that is a word", config: []change{{"[127.0.0.1/32]", "127.0.0.1/32"}}, want: []string{"noted.yaml:5:18"}},
		{name: "a word that is a list", config: []change{{"policy: policy.csv", "policy: [policy.csv]"}}, want: []string{"noted.yaml:4:9"}},
		{name: "a duration without a unit", config: []change{{"session_idle: 24h", "session_idle: 24"}}, want: []string{"noted.yaml:6:15"}},
		{name: "a duration that is none", config: []change{{"session_idle: 24h", "session_idle: a day"}}, want: []string{"noted.yaml:6:15"}},
		{name: "a duration with its days at the end", config: []change{{"session_idle: 24h", "session_idle: 12h1d"}}, want: []string{"noted.yaml:6:15", "session_idle", "1d12h"}},
		{name: "a duration that is a truth", config: []change{{"session_idle: 24h", "session_idle: true"}}, want: []string{"noted.yaml:6:15", "session_idle"}},
		{name: "a setting twice", config: []change{{"session_idle: 24h\n", "session_idle: 24h\nsession_idle: 12h\n"}}, want: []string{"noted.yaml:7:1", "session_idle"}},
		{name: "an unknown member of a provider", config: []change{{last, last + "    client_sekret: x\n"}}, want: []string{"noted.yaml:14:5", "client_sekret", "did you mean client_secret?"}},
		{name: "a member of a provider twice", config: []change{{last, last + "    name: again\n"}}, want: []string{"noted.yaml:14:5", "name"}},
		{name: "no YAML", config: []change{{"policy: policy.csv\n", "policy: {\n"}}, want: []string{"noted.yaml:"}},
		{name: "two documents", config: []change{{last, last + "---\ncolour: red\n"}}, want: []string{"noted.yaml:"}},

		// Settings.
		{name: "no database_url", config: []change{{"database_url: ", "# database_url: "}}, want: []string{"database_url"}},
		{name: "no public_url", config: []change{{"public_url: ", "# public_url: "}}, want: []string{"public_url"}},
		{name: "an http public_url that is not loopback", config: []change{{"https://notes", "http://notes"}}, want: []string{"public_url", "https"}},
		{name: "a public_url with a path", config: []change{{"https://notes.example", "https://notes.example/notes"}}, want: []string{"public_url"}},
		{name: "a trusted proxy that is no network", config: []change{{"127.0.0.1/32", "10.0.0.300/8"}}, want: []string{"trusted_proxies", "10.0.0.300/8"}},
		{name: "a trusted proxy without its prefix length", config: []change{{"127.0.0.1/32", "10.0.0.1"}}, want: []string{"trusted_proxies", "10.0.0.1"}},
		{name: "no time at all", config: []change{{"session_idle: 24h", "session_idle: 0s"}}, want: []string{"session_idle"}},
		{name: "a negative time", config: []change{{"session_idle: 24h", "dead_zone_retention: -1h"}}, want: []string{"dead_zone_retention"}},
		{name: "a log level that there is not", config: []change{{"session_idle: 24h", "log_level: loud"}}, want: []string{"log", "loud", "debug"}},

		// Flags and variables.
		{name: "an unknown flag", flags: []string{"--colour=red"}, want: []string{"--colour"}},
		{name: "a stray argument", flags: []string{"please"}, want: []string{"please"}},
		{name: "a duration without a unit in a flag", flags: []string{"--session-idle=24"}, want: []string{"--session-idle"}},
		{name: "a duration without a unit in a variable", env: []string{"NOTED_SESSION_IDLE=24"}, want: []string{"session", "24"}},
		{name: "a word for a number in a variable", env: []string{"NOTED_AUTH_FAILURES_PER_MINUTE=lots"}, want: []string{"auth-failures-per-minute", "lots"}},
		{name: "a configuration file that is not there", file: "elsewhere.yaml", want: []string{"elsewhere.yaml"}},
		{name: "a policy file that is not there", flags: []string{"--policy=elsewhere.csv"}, want: []string{"elsewhere.csv"}},

		// Providers.
		{name: "no providers", config: []change{{"providers:\n", "providers: []\n#"}, {"  - id: corp\n", "#\n"}, {"    name: The company\n", ""}, {"    issuer: https://login.example\n", ""}, {"    client_id: noted\n", ""}, {"    client_secret: hunter2-hunter2\n", ""}, {last, ""}}, want: []string{"providers"}},
		{name: "an http issuer that is not loopback", config: []change{{"https://login", "http://login"}}, want: []string{"corp", "issuer", "https"}},
		{name: "no issuer", config: []change{{"    issuer: https://login.example\n", ""}}, want: []string{"corp", "issuer"}},
		{name: "no client_id", config: []change{{"    client_id: noted\n", ""}}, want: []string{"corp", "client_id"}},
		{name: "no gate and no allow_everyone", config: []change{{last, ""}}, want: []string{"corp", "allow_everyone", "nothing says who may sign in", "allowed_email_domains"}},
		{name: "allow_everyone: false and no gate", config: []change{{"everyone: true", "everyone: false"}}, want: []string{"corp", "allow_everyone", "nothing says who may sign in"}},
		{name: "a gate and allow_everyone", config: []change{{last, last + "    hosted_domains: [corp.example]\n"}}, want: []string{"corp", "allow_everyone", "not both"}},
		{name: "a gate on groups that no claim names", config: []change{{last, "    allowed_groups: [staff]\n"}}, want: []string{"corp", "groups_claims"}},
		{name: "a provider id twice", config: []change{{last, last + strings.Replace(secondProvider, "other,", "corp,", 1)}}, want: []string{"corp", "twice"}},
		{name: "an issuer twice", config: []change{{last, last + strings.Replace(secondProvider, "other.example", "login.example", 1)}}, want: []string{"other", "issuer", "another provider"}},
		{name: "a provider id in capitals", config: []change{{"id: corp", "id: Corp"}}, want: []string{"Corp", "id:"}},
		{name: "no secret", config: []change{{"    client_secret: hunter2-hunter2\n", ""}}, want: []string{"corp", "client_secret"}},
		{name: "two secrets", config: []change{{last, last + "    client_secret_env: SECRET\n"}}, want: []string{"corp", "client_secret", "client_secret_env"}},
		{name: "a secret file that is not there", config: []change{{"client_secret: hunter2-hunter2", "client_secret_file: nowhere.txt"}}, want: []string{"corp", "client_secret_file", "nowhere.txt"}},
		{name: "a secret variable that is not set", config: []change{{"client_secret: hunter2-hunter2", "client_secret_env: NOWHERE"}}, want: []string{"corp", "client_secret_env", "NOWHERE"}},
		{name: "scopes without openid", config: []change{{last, last + "    scopes: [email]\n"}}, want: []string{"corp", "scopes", "openid"}},
		{name: "a ca_file that is not there", config: []change{{last, last + "    ca_file: nowhere.pem\n"}}, want: []string{"corp", "ca_file", "nowhere.pem"}},

		// The policy.
		{name: "a policy without an admin", noPolicy: true, want: []string{"admin", "allow_no_admin"}},
		{name: "an admin of a domain that no provider vouches for", noPolicy: true, policy: "g, ada@dev.example, admin\n", want: []string{"policy.csv:141:4", "email_domains", "allow_no_admin"}},
		{name: "an admin of a provider that is not there", noPolicy: true, policy: "g, google:1, admin\n", want: []string{"policy.csv:141:4", "google", "write corp", "allow_no_admin"}},
		{name: "an admin by a group that is not asked for", noPolicy: true, policy: "g, group:corp:staff, boss\ng, boss, admin\n", want: []string{"policy.csv:141:4", "groups_claims", "allow_no_admin"}},
		{name: "a star for everybody", policy: "g, *@corp.example, admin\n", want: []string{added, "*"}},
		{name: "a policy with an unknown object", policy: "p, user, nite:own, read\n", want: []string{added, "nite:own"}},
		{name: "a policy with an unknown act", policy: "p, user, note:own, raed\n", want: []string{added, "raed"}},
		{name: "a policy with a line twice", policy: "p, user, note:own, read\n", want: []string{added, "note:own"}},
		{name: "a p line with too few columns", policy: "p, user, note:own\n", want: []string{added, "column"}},
		{name: "a p line with too many columns", policy: "p, user, note:own, read, allow\n", want: []string{added, "column"}},
		{name: "a g line with too many columns", policy: "g, corp:bob, moderator, corp\n", want: []string{added, "column"}},
		{name: "a g line of a role that there is not", policy: "g, corp:bob, overseer\n", want: []string{added, "overseer"}},
		{name: "a line of another kind", policy: "q, user, note:own, read\n", want: []string{added, "q"}},
		{name: "a permission for a person", policy: "p, corp:bob, note:any, read\n", want: []string{added, "corp:bob"}},
		{name: "a key that may make keys", policy: "p, key-admin, key:own, write\n", want: []string{"policy.csv", "key-admin"}},
		{name: "everybody's notes for everybody", policy: "p, user, note:any, read\n", want: []string{"policy.csv", "note:any"}},
	}
	for _, id := range []string{"dev", "group", "email", "key", "service"} {
		cases = append(cases, configCase{name: "the reserved provider id " + id, config: []change{{"id: corp", "id: " + id}}, want: []string{id, "reserved"}})
	}
	for _, c := range cases {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			p := startConfig(t, c, databaseURL)
			text := wantRefusal(t, p)
			for _, want := range c.want {
				if !strings.Contains(text, want) {
					t.Errorf("the error does not name %q: %s", want, text)
				}
			}
			if out := p.stdout.String(); out != "" {
				t.Errorf("standard output: %q", out)
			}
		})
	}
}

func TestServeStartsOnAConfigurationThatWorks(t *testing.T) {
	t.Parallel()
	databaseURL := pgtest.URL(t)
	for _, c := range []configCase{
		{name: "the one that the refused ones come from"},
		{name: "with days in the file, in a flag and in a variable", config: []change{{"session_idle: 24h", "session_idle: 1d12h"}}, flags: []string{"--dead-zone-retention=30d"}, env: []string{"NOTED_KEY_MAX_AGE=365d"}},
		{name: "with a second provider", config: []change{{"    allow_everyone: true\n", "    allow_everyone: true\n" + secondProvider}}},
		{name: "without an admin, when allow_no_admin says so", noPolicy: true, config: []change{{"session_idle: 24h", "allow_no_admin: true"}}},
		{name: "with an admin of a domain that a provider vouches for", noPolicy: true, policy: "g, ada@corp.example, admin\n", config: []change{{"    allow_everyone: true\n", "    allow_everyone: true\n    email_domains: [Corp.example]\n"}}},
		{name: "with an admin by a group that is asked for", noPolicy: true, policy: "g, group:corp:staff, admin\n", config: []change{{"    allow_everyone: true\n", "    allow_everyone: true\n    groups_claims: [groups]\n"}}},
		{name: "with an admin who cannot sign in, when the flag says so", noPolicy: true, policy: "g, google:1, admin\n", flags: []string{"--allow-no-admin"}},
		{name: "without an admin, when the flag says so", noPolicy: true, flags: []string{"--allow-no-admin"}},
		{name: "without an admin, when the variable says so", noPolicy: true, env: []string{"NOTED_ALLOW_NO_ADMIN=true"}},
		{name: "with a secret in a variable", config: []change{{"client_secret: hunter2-hunter2", "client_secret_env: CORP_SECRET"}}, env: []string{"CORP_SECRET=x"}},
		{name: "with a gate instead of allow_everyone", config: []change{{"allow_everyone: true", "allowed_email_domains: [corp.example]"}}},
		{name: "with an http address on loopback", config: []change{{"https://notes.example", "http://localhost:8080"}}},
		{name: "with a slash at the end of public_url", config: []change{{"https://notes.example", "https://notes.example/"}}},
		{name: "with database_url in a variable", config: []change{{"database_url: ", "# database_url: "}}, env: []string{"NOTED_DATABASE_URL=" + databaseURL}},
		{name: "with several trusted proxies in a variable", env: []string{"NOTED_TRUSTED_PROXIES=10.0.0.0/8,::1/128"}},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			p := startConfig(t, c, databaseURL)
			p.await(t, startLimit, "it serves", func() bool { return serving(p) })
			p.stop(t)
		})
	}
}

func TestServeDoesNotShowTheDatabasesPassword(t *testing.T) {
	t.Parallel()
	for _, address := range []string{
		"postgres://noted:hunter2@127.0.0.1:1/noted?connect_timeout=2",
		"postgres://noted:hunter2@127.0.0.1:port/noted",
		"postgres://noted:hunter2@[/noted",
		"host=127.0.0.1 port=1 user=noted password=hunter2",
	} {
		t.Run(strings.ReplaceAll(address, "/", "|"), func(t *testing.T) {
			if text := wantRefusal(t, startConfig(t, configCase{}, address)); text == "" {
				t.Error("it says nothing")
			}
		})
	}
}

func TestAnOlderBinaryRefusesANewerSchemaAndLeavesItAlone(t *testing.T) {
	t.Parallel()
	databaseURL := pgtest.URL(t)
	conn, err := pgx.Connect(t.Context(), databaseURL)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = conn.Close(t.Context()) }()
	if _, err := conn.Exec(t.Context(), `insert into goose_db_version (version_id, is_applied) values (9999, true)`); err != nil {
		t.Fatal(err)
	}
	before := contents(t, conn)
	text := wantRefusal(t, startConfig(t, configCase{}, databaseURL))
	if !strings.Contains(text, "newer noted") || !strings.Contains(text, "9999") {
		t.Errorf("the error does not speak of a newer noted and its version: %s", text)
	}
	if diff := cmp.Diff(before, contents(t, conn)); diff != "" {
		t.Errorf("the database has changed:\n%s", diff)
	}
}

// contents returns all columns of a database, each table's rows, and how often each was written.
func contents(t *testing.T, conn *pgx.Conn) (lines []string) {
	t.Helper()
	query := func(sql string) []string {
		rows, err := conn.Query(t.Context(), sql)
		if err != nil {
			t.Fatal(err)
		}
		found, err := pgx.CollectRows(rows, pgx.RowTo[string])
		if err != nil {
			t.Fatal(err)
		}
		return found
	}
	lines = query(`
		select concat_ws(' ', table_name, column_name, data_type, is_nullable, column_default)
		from information_schema.columns where table_schema = 'public' order by 1`)
	lines = append(lines, query(`select indexdef from pg_indexes where schemaname = 'public' order by 1`)...)
	for _, table := range query(`select table_name from information_schema.tables where table_schema = 'public' and table_type = 'BASE TABLE' order by 1`) {
		// xmin changes whenever a row is rewritten, even to the same values.
		lines = append(lines, query(fmt.Sprintf(`select %s || t.xmin || t::text from %s t order by 1`, "'"+table+" '", pgx.Identifier{table}.Sanitize()))...)
	}
	return lines
}

func TestServeHasNoProviderOfItsOwn(t *testing.T) {
	t.Parallel()
	p := startConfig(t, configCase{config: []change{{"listen: 127.0.0.1:0", fmt.Sprintf("listen: 127.0.0.1:%d", freePort(t))}}}, pgtest.URL(t))
	address := regexp.MustCompile(`"listen":"([^"]+)"`)
	p.await(t, startLimit, "it serves", func() bool { return address.MatchString(p.stderr.String()) })
	c := plainClient("http://"+address.FindStringSubmatch(p.stderr.String())[1], "")
	c.get(t, "/auth/login?provider=dev&login_hint=alice").want(t, http.StatusNotFound)
	var providers struct{ Items []struct{ ID string } }
	c.get(t, "/auth/providers").want(t, http.StatusOK).into(t, &providers)
	if len(providers.Items) != 1 || providers.Items[0].ID != "corp" {
		t.Errorf("the providers are %+v, want corp alone", providers.Items)
	}
	p.signal(syscall.SIGINT)
	if code := p.exit(t); code != 0 {
		t.Errorf("after SIGINT the exit code is %d, want 0", code)
	}
}
