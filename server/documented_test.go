package server_test

import (
	"net/http"
	"os"
	"reflect"
	"regexp"
	"strings"
	"testing"

	"noted/server"
	"noted/server/servertest"
)

func read(t *testing.T, name string) string {
	t.Helper()
	text, err := os.ReadFile(name)
	if err != nil {
		t.Fatal(err)
	}
	return string(text)
}

// An operator finds every setting in the example and in the handbook.
func TestEverySettingIsDocumented(t *testing.T) {
	example, handbook := read(t, "../noted.example.yaml"), read(t, "../docs/operations.md")
	settings := reflect.TypeFor[server.Settings]()
	for i := range settings.NumField() {
		name, _, _ := strings.Cut(settings.Field(i).Tag.Get("yaml"), ",")
		if name == "" {
			t.Errorf("%s has no name in YAML", settings.Field(i).Name)
		}
		if !regexp.MustCompile(`(?m)^#? ?` + name + `:`).MatchString(example) {
			t.Errorf("noted.example.yaml does not show %s", name)
		}
		if !strings.Contains(handbook, "`"+name+"`") {
			t.Errorf("docs/operations.md does not explain %s", name)
		}
	}
}

// So is every metric.
func TestEveryMetricIsDocumented(t *testing.T) {
	t.Parallel()
	handbook := read(t, "../docs/operations.md")
	env := servertest.New(t)
	text := string(env.Do(t, http.MethodGet, "/metrics", "", nil).Body)
	names := regexp.MustCompile(`(?m)^# TYPE (noted_\w+)`).FindAllStringSubmatch(text, -1)
	if len(names) < 20 {
		t.Fatalf("only %d metrics: %.300s", len(names), text)
	}
	for _, name := range names {
		short := regexp.MustCompile(`_[a-z]+$`).FindString(name[1]) // a row may name several: `noted_db_acquired`, `…_idle`
		if !strings.Contains(handbook, "`"+name[1]+"`") && !strings.Contains(handbook, "`…"+short+"`") {
			t.Errorf("docs/operations.md does not explain %s", name[1])
		}
	}
}
