package authz

import (
	"fmt"
	"slices"
	"strings"

	"noted/internal/nearest"
)

// Fault is one error in a file: where it is, which rule it breaks, what was read, and what to
// write instead.
type Fault struct {
	File string `json:"file"`
	// Line counts from 1; 0 for a line that is in no file, such as those of `noted dev`.
	Line int `json:"line"`
	// Column counts characters from 1, without a byte order mark.
	Column  int    `json:"column"`
	Rule    string `json:"rule"` // a stable word for programs, such as unknown-act
	Message string `json:"message"`
}

// String is FILE:LINE:COLUMN: MESSAGE, as editors and CI systems read it.
func (f Fault) String() string {
	return fmt.Sprintf("%s:%d:%d: %s", f.File, f.Line, f.Column, f.Message)
}

// Faults are all faults of a policy and its model, in file order.
type Faults []Fault

// Error returns a line for each of the first hundred.
func (f Faults) Error() string {
	const most = 100
	var lines []string
	for i, one := range f {
		if i == most {
			lines = append(lines, fmt.Sprintf("and %d more", len(f)-most))
			break
		}
		lines = append(lines, one.String())
	}
	return strings.Join(lines, "\n")
}

// sorted orders by file as first met, then line and column.
func (f Faults) sorted() Faults {
	var files []string
	for _, one := range f {
		if !slices.Contains(files, one.File) {
			files = append(files, one.File)
		}
	}
	slices.SortStableFunc(f, func(a, b Fault) int {
		if by := slices.Index(files, a.File) - slices.Index(files, b.File); by != 0 {
			return by
		}
		if by := a.Line - b.Line; by != 0 {
			return by
		}
		return a.Column - b.Column
	})
	return f
}

// err returns nil if there are no faults.
func (f Faults) err() error {
	if len(f) == 0 {
		return nil
	}
	return f.sorted()
}

// instead suggests what to write for word: the known word nearest to it, else all of them.
func instead(word string, known []string) string {
	if near := nearest.Of(word, known); near != "" {
		return "write " + near
	}
	if len(known) == 1 {
		return "write " + known[0]
	}
	return "write one of " + strings.Join(known, ", ")
}
