package e2e

import (
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
)

var shellBlock = regexp.MustCompile("(?s)```sh\n(.*?)```")

// TestTheDocumentedOrganizationsCanBeSetUpByCurl runs docs/organizations.md on `noted dev`, block by block, as a
// newcomer would.
func TestTheDocumentedOrganizationsCanBeSetUpByCurl(t *testing.T) {
	t.Parallel()
	for _, program := range []string{"bash", "curl", "jq"} {
		if _, err := exec.LookPath(program); err != nil {
			missing(t, program, "the commands of docs/organizations.md need it")
		}
	}
	text, err := os.ReadFile("../docs/organizations.md")
	if err != nil {
		t.Fatal(err)
	}
	d := startDev(t, publicFolder(t, nil), nil)
	script, said := "set -e\n", map[int]string{}
	for i, block := range shellBlock.FindAllStringSubmatch(string(text), -1) {
		script += block[1] + "\necho; echo '=== end of block'\n"
		said[i] = block[1]
	}
	folder := t.TempDir()
	command := exec.CommandContext(t.Context(), "bash", "-c", "umask 022; "+script)
	command.Dir, command.Env = folder, []string{"PATH=" + os.Getenv("PATH"), "HOME=" + t.TempDir(), "NOTED=" + d.url}
	out, err := command.CombinedOutput()
	if err != nil {
		t.Fatalf("the commands fail: %v\n%s", err, out)
	}
	blocks := strings.Split(string(out), "=== end of block\n")
	if len(blocks) != len(said)+1 {
		t.Fatalf("%d of %d blocks ran:\n%s", len(blocks)-1, len(said), out)
	}
	find := func(command string) (output string) {
		t.Helper()
		for i, block := range said {
			if strings.Contains(block, command) {
				return blocks[i]
			}
		}
		t.Fatalf("no block has %q", command)
		return ""
	}
	lines := func(output string) []string {
		list := slices.DeleteFunc(strings.Split(output, "\n"), func(line string) bool { return line == "" || strings.HasPrefix(line, "{") })
		slices.Sort(list)
		return list
	}
	for _, check := range []struct {
		command string
		want    []string
	}{
		{`| jq -r .status; done`, []string{"404", "404", "404"}},
		{`/access" |`, []string{
			"ada: read, write, delete (platform)", "alice: read, write, delete (org-admin)", "bob: read, write, delete (org-admin)",
			"dave: read, write (grant-writer, grant-reader)", "erin: read (grant-reader)", "mona: read, write (platform)",
		}},
		{"backup.token", []string{"First meeting"}},
	} {
		if got := lines(strings.ReplaceAll(find(check.command), "curl: (22) The requested URL returned error: 404\n", "")); !slices.Equal(got, check.want) {
			t.Errorf("%s says\n%s\nwant\n%s", check.command, strings.Join(got, "\n"), strings.Join(check.want, "\n"))
		}
	}
	for _, name := range []string{"backup.token", "alice.token"} {
		if info, err := os.Stat(filepath.Join(folder, name)); err != nil || info.Mode() != 0o600 {
			t.Errorf("%s: %v, %v", name, info.Mode(), err)
		}
	}
	for org, admin := range map[string]string{"Acme": "alice", "Globex": "frank"} {
		who := plainClient(d.url, newBrowser(t, d.url, nil, nil).signIn(t, "/auth/login?login_hint="+admin, "noted_session"))
		var members []struct{ Name string }
		for _, one := range list[struct{ ID, Name string }](t, who, "/v1/orgs") {
			if one.Name == org {
				members = list[struct{ Name string }](t, who, "/v1/orgs/"+one.ID+"/members")
			}
		}
		if len(members) != 5 {
			t.Errorf("%s has the members %+v, want five", org, members)
		}
	}
}
