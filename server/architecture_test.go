package server_test

import (
	"bytes"
	"flag"
	"fmt"
	"html"
	"os"
	"slices"
	"strings"
	"testing"
)

var drawArchitecture = flag.Bool("architecture.draw", false, "write docs/architecture.svg anew")

const architecture = "../docs/architecture.svg"

// The picture in docs/architecture.md is drawn from the imports. Never edit it; run
//
//	go test ./server -run TestThePictureShowsTheImports -architecture.draw
func TestThePictureShowsTheImports(t *testing.T) {
	drawn := draw(listPackages(t))
	if *drawArchitecture {
		if err := os.WriteFile(architecture, drawn, 0o644); err != nil {
			t.Fatal(err)
		}
	}
	there, err := os.ReadFile(architecture)
	if err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(there, drawn) {
		t.Error("docs/architecture.svg does not show the imports; run go test ./server -run TestThePictureShowsTheImports -architecture.draw")
	}
}

func TestThePictureShowsAnArrowThatRunsUp(t *testing.T) {
	packages := []listed{
		{ImportPath: "noted/keys", Name: "keys", GoFiles: []string{"keys.go"}, Imports: []string{"noted/authz", "noted/internal/page"}},
		{ImportPath: "noted/authz", Name: "authz", GoFiles: []string{"authz.go"}, Imports: []string{"noted/keys"}},
		{ImportPath: "noted/internal/page", Name: "page", GoFiles: []string{"page.go"}},
	}
	if got := string(draw(packages)); strings.Count(got, `class="down"`) != 1 || strings.Count(got, `class="up"`) != 1 {
		t.Errorf("one import goes down and one up, drawn is\n%s", got)
	}
}

// The picture's measures, in pixels.
const (
	boxLeft, boxWidth, boxHeight = 270, 640, 54
	boxGap, margin               = 26, 12
	groundColumns                = 4
	arcSpread                    = 32 // how much farther out an arc goes for each storey that it passes
)

// box is a room of the picture.
type box struct {
	listed
	top int
}

// draw makes the picture: the rooms from the roof down, an arc for each import between them, and in each box its
// imports from internal/. Downward imports are arcs on the left, upward ones red arcs on the right.
func draw(packages []listed) []byte {
	var rooms []box
	var ground []listed
	for _, p := range packages {
		switch at := storeyOf(p.ImportPath); {
		case at < 0 || isTestSupport(p.ImportPath) || len(p.GoFiles) == 0:
		case at == len(storeys)-1:
			ground = append(ground, p)
		case at > 0 || p.ImportPath == "noted/cmd/noted":
			rooms = append(rooms, box{listed: p})
		}
	}
	slices.SortStableFunc(rooms, func(a, b box) int { return storeyOf(a.ImportPath) - storeyOf(b.ImportPath) })
	for i := range rooms {
		rooms[i].top = margin + i*(boxHeight+boxGap)
	}
	groundTop := margin + len(rooms)*(boxHeight+boxGap)
	groundHeight := 50 + 22*((len(ground)+groundColumns-1)/groundColumns)
	width, height := boxLeft+boxWidth+40, groundTop+groundHeight+margin

	var b strings.Builder
	fmt.Fprintf(&b, `<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 %d %d" font-family="sans-serif" font-size="13">
<title>Which package imports which</title>
<style>
svg { background: #fff }
rect { fill: #f4f6fa; stroke: #33415c }
.ground { fill: #ece7dd }
path { fill: none; stroke-width: 1.4 }
.down { stroke: #5c7aa8 }
.up { stroke: #c0182b; stroke-width: 3 }
.name { font-weight: bold; font-size: 15px }
.small { font-size: 11px; fill: #555 }
</style>
<defs>
<marker id="tip" viewBox="0 0 8 8" refX="8" refY="4" markerWidth="7" markerHeight="7" orient="auto"><path d="M0 0 8 4 0 8z" style="fill:#33415c;stroke:none"/></marker>
</defs>
`, width, height)
	for to := range rooms {
		var above []int // importers, the nearest last
		for from := range rooms {
			if slices.Contains(rooms[from].Imports, rooms[to].ImportPath) {
				above = append(above, from)
			}
		}
		for i, from := range above {
			arc(&b, rooms[from], rooms[to], from, to, i, len(above))
		}
	}
	for _, r := range rooms {
		fmt.Fprintf(&b, `<rect x="%d" y="%d" width="%d" height="%d" rx="6"/>`+"\n", boxLeft, r.top, boxWidth, boxHeight)
		fmt.Fprintf(&b, `<text class="name" x="%d" y="%d">%s</text>`+"\n", boxLeft+14, r.top+23, inModule(r.ImportPath))
		fmt.Fprintf(&b, `<text x="%d" y="%d">%s</text>`+"\n", boxLeft+120, r.top+23, html.EscapeString(purpose(r.Doc, 78)))
		fmt.Fprintf(&b, `<text class="small" x="%d" y="%d">%s</text>`+"\n", boxLeft+120, r.top+42, stands(r.listed))
	}
	fmt.Fprintf(&b, `<rect class="ground" x="%d" y="%d" width="%d" height="%d" rx="6"/>`+"\n", boxLeft, groundTop, boxWidth, groundHeight)
	fmt.Fprintf(&b, `<text class="name" x="%d" y="%d">internal</text>`+"\n", boxLeft+14, groundTop+23)
	for i, p := range ground {
		x, y := boxLeft+14+i%groundColumns*(boxWidth/groundColumns), groundTop+50+22*(i/groundColumns)
		fmt.Fprintf(&b, `<text x="%d" y="%d">%s</text>`+"\n", x, y, inModule(p.ImportPath))
	}
	b.WriteString("</svg>\n")
	return []byte(b.String())
}

// arc draws an import. The tips at a box are stacked, those from farther away higher.
func arc(b *strings.Builder, from, to box, above, below, tip, tips int) {
	class, x, out := "down", boxLeft, -1
	if above > below {
		class, x, out = "up", boxLeft+boxWidth, 1
	}
	far := x + out*(24+arcSpread*(max(above-below, below-above)-1))
	y1, y2 := from.top+boxHeight*3/4, to.top+(tip+1)*boxHeight*3/4/(tips+1)
	fmt.Fprintf(b, `<path class="%s" marker-end="url(#tip)" d="M%d %d C%d %d %d %d %d %d"><title>%s imports %s</title></path>`+"\n",
		class, x, y1, far, y1, far, y2, x, y2, inModule(from.ImportPath), inModule(to.ImportPath))
}

// short is a package's path as the picture says it.
func inModule(importPath string) string {
	return strings.TrimPrefix(strings.TrimPrefix(importPath, "noted/"), "internal/")
}

// purpose is the start of the package comment, without the package's name, as far as it fits.
func purpose(doc string, fits int) string {
	if words := strings.SplitN(doc, " ", 3); len(words) == 3 {
		doc = words[2]
	}
	doc, _, _ = strings.Cut(strings.TrimPrefix(doc, "is "), ": ")
	doc = strings.TrimSuffix(doc, ".")
	if letters := []rune(doc); len(letters) > fits {
		doc = string(letters[:fits])
		doc = strings.TrimRight(doc[:strings.LastIndexByte(doc, ' ')], ",;:") + " …"
	}
	return doc
}

// stands says what a room imports from internal/.
func stands(p listed) string {
	var names []string
	for _, to := range p.Imports {
		if storeyOf(to) == len(storeys)-1 {
			names = append(names, inModule(to))
		}
	}
	if len(names) == 0 {
		return ""
	}
	return "stands on " + strings.Join(names, ", ")
}
