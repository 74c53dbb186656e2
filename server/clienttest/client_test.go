package clienttest

import (
	"encoding/json"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"testing"

	"github.com/getkin/kin-openapi/openapi3"
	"github.com/google/go-cmp/cmp"
	"github.com/oapi-codegen/oapi-codegen/v2/pkg/codegen"
	_ "github.com/oapi-codegen/runtime" // what the generated client needs

	"noted/server/servertest"
)

// generate writes the document's client to a temporary file, and returns an overlay that puts it beside the
// program.
func generate(t *testing.T, text []byte) (overlay string) {
	t.Helper()
	document, err := openapi3.NewLoader().LoadFromData(text)
	if err != nil {
		t.Fatal(err)
	}
	source, err := codegen.Generate(document, codegen.Configuration{
		PackageName: "main", Generate: codegen.GenerateOptions{Client: true, Models: true},
	}.UpdateDefaults())
	if err != nil {
		t.Fatal(err)
	}
	place, err := filepath.Abs("testdata/reader/client.gen.go")
	if err != nil {
		t.Fatal(err)
	}
	folder := t.TempDir()
	write := func(name string, content []byte) string {
		file := filepath.Join(folder, name)
		if err := os.WriteFile(file, content, 0o600); err != nil {
			t.Fatal(err)
		}
		return file
	}
	replace, err := json.Marshal(map[string]map[string]string{"Replace": {place: write("client.go", []byte(source))}})
	if err != nil {
		t.Fatal(err)
	}
	return write("overlay.json", replace)
}

func TestAGeneratedClientReadsAPersonalNote(t *testing.T) {
	env := servertest.New(t)
	alice := env.SignIn(t, "alice")
	id := env.NewNote(t, alice, "mine")
	overlay := generate(t, env.Do(t, http.MethodGet, "/openapi.json", "", nil).Body)
	program := exec.CommandContext(t.Context(), "go", "run", "-overlay", overlay, "./testdata/reader", env.URL, alice, id) //nolint:gosec // our own
	program.Stderr = os.Stderr
	said, err := program.Output()
	if err != nil {
		t.Fatalf("the generated client: %v", err)
	}
	want := "note mine: body of mine; in no organization and no notebook; version 1 by alice\n" +
		"me alice: by no key\n" +
		"the list: mine, and nothing follows\n" +
		"another note: 404 There is no such note, or you may not read it\n"
	if diff := cmp.Diff(want, string(said)); diff != "" {
		t.Errorf("it read (-want +got):\n%s", diff)
	}
}
