package server_test

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/alecthomas/kong"

	"noted/server"
	"noted/server/servertest"
)

func TestSettingsThatAreDurationsTakeDaysEverywhere(t *testing.T) {
	t.Setenv("NOTED_KEY_MAX_AGE", "400d")
	var c struct{ server.Settings }
	parser, err := kong.New(&c, server.DurationFlags())
	if err != nil {
		t.Fatal(err)
	}
	if _, err := parser.Parse([]string{"--session-idle=1d12h", "--dead-zone-retention=7d"}); err != nil {
		t.Fatal(err)
	}
	if c.SessionIdle != 36*time.Hour || c.DeadZoneRetention != 168*time.Hour || c.KeyMaxAge != 400*24*time.Hour || c.GroupMaxAge != 168*time.Hour {
		t.Errorf("read as %+v", c.Settings)
	}
	if _, err := parser.Parse([]string{"--session-idle=12h1d"}); err == nil || !strings.Contains(err.Error(), "--session-idle") || !strings.Contains(err.Error(), "1d12h") {
		t.Errorf("the error does not say which flag and what to write: %v", err)
	}
}

func TestSettingsFileIsReadStrictly(t *testing.T) {
	for text, want := range map[string]string{
		"session_idle: 7d\n":                                "",
		"session_idle: \"1d12h\"\nlisten: 127.0.0.1:1\n":    "",
		"session_idle: 0\n":                                 "",
		"session_idle:\n":                                   "",
		"session_idle: 1.5\n":                               ":1:15: session_idle: \"1.5\" is no length of time",
		"session_idle: 7 days\n":                            ":1:15: session_idle: \"7 days\" is no length of time",
		"publik_url: x\n":                                   ":1:1: unknown setting \"publik_url\"; did you mean public_url?",
		"Public_URL: x\n":                                   ":1:1: unknown setting \"Public_URL\"; did you mean public_url?",
		"client_id: x\n":                                    ":1:1: unknown setting \"client_id\"",
		"provider: []\n":                                    "did you mean providers?",
		"colour: x\n":                                       ":1:1: unknown setting \"colour\"",
		"providers:\n  - id: a\n    clientid: x\n":          ":3:5: unknown setting \"clientid\"; did you mean client_id?",
		"providers:\n  - {id: a, isuer: x}\n":               ":2:13: unknown setting \"isuer\"; did you mean issuer?",
		"listen: 127.0.0.1:1\nsession_idle: {days: 7}\n":    ":2:",
		"providers:\n  - id: a\n    database_url: secret\n": ":3:5: unknown setting \"database_url\"",
	} {
		name := filepath.Join(t.TempDir(), "noted.yaml")
		if err := os.WriteFile(name, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		_, _, err := server.ReadFile(name)
		switch {
		case want == "" && err != nil:
			t.Errorf("%q: %v", text, err)
		case want != "" && (err == nil || !strings.Contains(err.Error(), want)):
			t.Errorf("%q: %v; want %s", text, err, want)
		case err != nil && strings.HasSuffix(want, "\"") && strings.Contains(err.Error(), "did you mean"):
			t.Errorf("%q: a name is suggested that nobody meant: %v", text, err)
		}
	}
}

// "No gate" and "both" are two mistakes with two remedies.
func TestSettingsOfAProviderSayWhichMistakeWasMadeAboutItsGate(t *testing.T) {
	for name, one := range map[string]struct {
		change func(*server.ProviderSettings)
		want   string
	}{
		"none": {func(*server.ProviderSettings) {}, "nothing says who may sign in"},
		"both": {func(p *server.ProviderSettings) {
			p.AllowEveryone, p.AllowedEmailDomains = true, []string{"corp.example"}
		}, "not both"},
		"a gate":   {func(p *server.ProviderSettings) { p.HostedDomains = []string{"corp.example"} }, ""},
		"everyone": {func(p *server.ProviderSettings) { p.AllowEveryone = true }, ""},
	} {
		entry := server.ProviderSettings{ID: "corp", Issuer: "https://login.example", ClientID: "noted", ClientSecret: "x"}
		one.change(&entry)
		_, err := server.Providers([]server.ProviderSettings{entry})
		if (err == nil) != (one.want == "") || err != nil && !strings.Contains(err.Error(), one.want) {
			t.Errorf("%s: %v, want %q", name, err, one.want)
		}
	}
}

func TestSettingsDefaultsAreReadByTheSameReader(t *testing.T) {
	if s := servertest.Defaults(t); s.SessionAbsolute != 7*24*time.Hour || s.KeyMaxAge != 365*24*time.Hour {
		t.Errorf("%+v", s)
	}
}
