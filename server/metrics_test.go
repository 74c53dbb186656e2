package server_test

import (
	"go/ast"
	"go/parser"
	"go/token"
	"net/http"
	"net/url"
	"regexp"
	"runtime"
	"strconv"
	"strings"
	"testing"

	"noted/identity"
	"noted/server/servertest"
)

// metricsOf returns the samples of /metrics by name with labels.
func metricsOf(t *testing.T, env *servertest.Env) map[string]float64 {
	t.Helper()
	samples := map[string]float64{}
	for line := range strings.Lines(string(env.Do(t, http.MethodGet, "/metrics", "", nil).Body)) {
		name, value, found := strings.Cut(strings.TrimSpace(line), "} ")
		if found {
			name += "}"
		} else {
			name, value, _ = strings.Cut(name, " ")
		}
		if number, err := strconv.ParseFloat(value, 64); err == nil {
			samples[name] = number
		}
	}
	return samples
}

func TestMetricsSayWhichBuildItIsAndHowTheDatabaseIsReached(t *testing.T) {
	env := servertest.New(t)
	got := metricsOf(t, env)
	if build := `noted_build_info{go_version="` + runtime.Version() + `",version="test"}`; got[build] != 1 {
		t.Errorf("no %s", build)
	}
	if got["noted_http_requests_in_flight"] != 1 { // this request
		t.Errorf("in flight: %v", got["noted_http_requests_in_flight"])
	}
	// Held connections show, and so does waiting for one.
	limit := int(env.Pool.Config().MaxConns)
	if int(got["noted_db_connections_max"]) != limit {
		t.Errorf("at most %v connections, want %d", got["noted_db_connections_max"], limit)
	}
	for _, name := range []string{"noted_db_connections_acquired", "noted_db_connections_idle", "noted_db_waits_total", "noted_db_wait_seconds_total"} {
		if _, there := got[name]; !there {
			t.Errorf("no %s", name)
		}
	}
	conn, err := env.Pool.Acquire(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	during := metricsOf(t, env)["noted_db_connections_acquired"]
	conn.Release()
	if during < 1 {
		t.Errorf("%v connections are at work while one is held", during)
	}
}

// A counter that first appears with its first event has no rate then, so each exists from the start.
func TestMetricsOfSignInsAreThereFromZeroAndCountEachWayOnce(t *testing.T) {
	env := servertest.New(t)
	sample := func(way, outcome string) string {
		return `noted_sign_ins_total{outcome="` + outcome + `",way="` + way + `"}`
	}
	ways := []string{"callback", "exchange", "device", "link"}
	first := metricsOf(t, env)
	for _, way := range ways {
		for _, outcome := range []string{"success", "failure"} {
			if value, there := first[sample(way, outcome)]; !there || value != 0 {
				t.Errorf("%s: %v, %t", sample(way, outcome), value, there)
			}
		}
	}
	for _, reason := range identity.Reasons {
		if value, there := first[`noted_auth_failures_total{reason="`+string(reason)+`"}`]; !there || value != 0 {
			t.Errorf("%s: %v, %t", reason, value, there)
		}
	}
	want := map[string]float64{}
	step := func(name string, do func(), changed ...string) {
		t.Helper()
		do()
		for _, one := range changed {
			want[one]++
		}
		got := metricsOf(t, env)
		for _, way := range ways {
			for _, outcome := range []string{"success", "failure"} {
				if one := sample(way, outcome); got[one] != want[one] {
					t.Errorf("after %s %s is %v, want %v", name, one, got[one], want[one])
				}
			}
		}
	}
	var alice string
	step("a sign-in", func() { alice = env.SignIn(t, "alice") }, sample("callback", "success"))
	step("a bad callback", func() { env.Do(t, http.MethodGet, "/auth/callback/dev?state=x", "", nil) }, sample("callback", "failure"))
	post := func(path, body, token string) servertest.Answer {
		return env.Do(t, http.MethodPost, path, token, body, "Content-Type", "application/x-www-form-urlencoded")
	}
	const exchange = "grant_type=urn:ietf:params:oauth:grant-type:token-exchange"
	step("an exchange without its token", func() { post("/auth/token", exchange, "") })
	step("an exchange of nonsense", func() {
		post("/auth/token", exchange+"&subject_token=x&subject_token_type=urn:ietf:params:oauth:token-type:id_token", "")
	}, sample("exchange", "failure"))

	login := func() (device, user string) {
		var begun struct {
			DeviceCode string `json:"device_code"`
			UserCode   string `json:"user_code"`
		}
		post("/auth/device", "client_id=noted-cli", "").JSON(t, &begun)
		return begun.DeviceCode, begun.UserCode
	}
	poll := func(device string) {
		post("/auth/token", "grant_type=urn:ietf:params:oauth:grant-type:device_code&client_id=noted-cli&device_code="+url.QueryEscape(device), "")
	}
	device, user := login()
	step("a poll before the decision", func() { poll(device) })
	step("an approval", func() { post("/auth/device/confirm", "decision=approve&user_code="+user, alice) })
	step("the poll afterwards", func() { poll(device) }, sample("device", "success"))
	step("a used code", func() { poll(device) }, sample("device", "failure"))
	device, user = login()
	post("/auth/device/confirm", "decision=deny&user_code="+user, alice)
	step("a denied login", func() { poll(device) }, sample("device", "failure"))

	step("a confirmation of nothing", func() { post("/auth/link/confirm", "code=x", alice) }, sample("link", "failure"))
	step("a link", func() {
		var begun struct{ URL string }
		env.Do(t, http.MethodPost, "/v1/me/identities", alice, map[string]string{"provider": "dev"}).JSON(t, &begun)
		browser := env.Browser(t)
		at, err := url.Parse(env.URL)
		if err != nil {
			t.Fatal(err)
		}
		browser.Jar.SetCookies(at, []*http.Cookie{{Name: "noted_session", Value: alice}}) //nolint:gosec // a test's own
		response, err := browser.Get(begun.URL + "&login_hint=bob")
		if err != nil {
			t.Fatal(err)
		}
		defer func() { _ = response.Body.Close() }()
		var page strings.Builder
		if err := response.Write(&page); err != nil {
			t.Fatal(err)
		}
		code := regexp.MustCompile(`name="code" value="([^"]+)"`).FindStringSubmatch(page.String())
		if code == nil {
			t.Fatalf("no page to confirm: %s", page.String())
		}
		if a := post("/auth/link/confirm", "code="+code[1], alice); a.Status != http.StatusSeeOther {
			t.Errorf("%d %s", a.Status, a.Body)
		}
	}, sample("link", "success"))
}

// Every reason in the code is in the list, and so has its counter from the start.
func TestMetricsKnowEveryReasonOfAFailure(t *testing.T) {
	file, err := parser.ParseFile(token.NewFileSet(), "../identity/failure.go", nil, 0)
	if err != nil {
		t.Fatal(err)
	}
	declared := 0
	for _, declaration := range file.Decls {
		group, ok := declaration.(*ast.GenDecl)
		if !ok || group.Tok != token.CONST {
			continue
		}
		for _, spec := range group.Specs {
			value := spec.(*ast.ValueSpec)
			if name, ok := value.Type.(*ast.Ident); ok && name.Name == "Reason" {
				declared++
			}
		}
	}
	if declared == 0 || declared != len(identity.Reasons) {
		t.Errorf("%d reasons are declared, %d are in the list", declared, len(identity.Reasons))
	}
}
