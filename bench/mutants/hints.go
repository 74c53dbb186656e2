package main

import (
	"bufio"
	"bytes"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
)

// hintsFile says which test found each fault in the last run, so that the next run tries it first. A wrong hint
// costs only time; every whole run rewrites the file.
var hintsFile = filepath.Join("bench", "mutants", "hints.tsv")

// readHints returns the test, as package and name, for each fault.
func readHints(root string) (map[string]string, error) {
	text, err := os.ReadFile(filepath.Join(root, hintsFile)) //nolint:gosec // below the root of the module
	if err != nil {
		return nil, err
	}
	hints := map[string]string{}
	lines := bufio.NewScanner(bytes.NewReader(text))
	for lines.Scan() {
		if fault, test, ok := strings.Cut(lines.Text(), "\t"); ok {
			hints[fault] = test
		}
	}
	return hints, lines.Err()
}

func writeHints(root string, hints map[string]string) error {
	var text bytes.Buffer
	for _, fault := range slices.Sorted(maps.Keys(hints)) {
		fmt.Fprintf(&text, "%s\t%s\n", fault, hints[fault])
	}
	return os.WriteFile(filepath.Join(root, hintsFile), text.Bytes(), 0o644) //nolint:gosec // a source file
}
