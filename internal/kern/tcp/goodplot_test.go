package tcp

import (
	"bytes"
	"fmt"
	"html"
	"math"
	"os"
	"slices"
	"strconv"
	"strings"
	"testing"
)

// The drawings of docs/goodput.md. They show what testdata/goodput.golden says and nothing else,
// so each run can tell whether they are up to date.

// goodputDrawings are the files, and how each is drawn from the lines of the golden file.
var goodputDrawings = []struct {
	path string
	draw func(goldenLines) string
}{
	{"../../../docs/goodput-loss.svg", drawLoss},
	{"../../../docs/goodput-reorder.svg", drawReorder},
	{"../../../docs/goodput-late.svg", drawLate},
	{"../../../docs/goodput-shares.svg", drawShares},
	{"../../../docs/goodput-queue.svg", drawQueue},
}

// testGoodputDrawings compares the drawings with the golden file, or draws them anew.
func testGoodputDrawings(t *testing.T) {
	golden := readGolden(t)
	for _, d := range goodputDrawings {
		want := []byte(d.draw(golden))
		if *update {
			if err := os.WriteFile(d.path, want, 0o666); err != nil {
				t.Error(err)
			}
			continue
		}
		if got, err := os.ReadFile(d.path); err != nil || !bytes.Equal(got, want) {
			t.Errorf("%s does not show what %s says (%v)", d.path, goodputGolden, err)
		}
	}
}

// A drawing is an SVG under way, in pixels from the upper left corner.
type drawing struct {
	width, height float64
	b             strings.Builder
}

const (
	ink  = "#24292f"
	pale = "#57606a"
	grid = "#e1e5e9"
)

func (d *drawing) line(x1, y1, x2, y2 float64, style string) {
	fmt.Fprintf(&d.b, "<line x1=\"%.1f\" y1=\"%.1f\" x2=\"%.1f\" y2=\"%.1f\" %s/>\n", x1, y1, x2, y2, style)
}

func (d *drawing) rect(x, y, w, h float64, fill string) {
	fmt.Fprintf(&d.b, "<rect x=\"%.1f\" y=\"%.1f\" width=\"%.1f\" height=\"%.1f\" fill=\"%s\"/>\n", x, y, w, h, fill)
}

// text writes s; anchor is start, middle or end.
func (d *drawing) text(x, y float64, anchor, style, s string) {
	fmt.Fprintf(&d.b, "<text x=\"%.1f\" y=\"%.1f\" text-anchor=\"%s\" %s>%s</text>\n", x, y, anchor, style, html.EscapeString(s))
}

const (
	bold  = `font-weight="bold"`
	plain = `fill="` + pale + `"`
)

// curve draws a line through points, with a mark at each if there are few.
func (d *drawing) curve(points [][2]float64, colour, dash, mark string) {
	var at []string
	for _, p := range points {
		at = append(at, fmt.Sprintf("%.1f,%.1f", p[0], p[1]))
	}
	if dash != "" {
		dash = ` stroke-dasharray="` + dash + `"`
	}
	fmt.Fprintf(&d.b, "<polyline points=\"%s\" fill=\"none\" stroke=\"%s\" stroke-width=\"2\" stroke-linejoin=\"round\"%s/>\n",
		strings.Join(at, " "), colour, dash)
	for _, p := range points {
		d.mark(p[0], p[1], colour, mark)
	}
}

// mark draws a disc, a square or a triangle.
func (d *drawing) mark(x, y float64, colour, mark string) {
	switch mark {
	case "disc":
		fmt.Fprintf(&d.b, "<circle cx=\"%.1f\" cy=\"%.1f\" r=\"3.5\" fill=\"%s\"/>\n", x, y, colour)
	case "square":
		d.rect(x-3.2, y-3.2, 6.4, 6.4, colour)
	case "triangle":
		fmt.Fprintf(&d.b, "<path d=\"M%.1f %.1fl4.2 7.4h-8.4z\" fill=\"%s\"/>\n", x, y-4.6, colour)
	}
}

// String returns the file. It has a background of its own, so that it can be read on a dark page.
func (d *drawing) String() string {
	return fmt.Sprintf("<svg xmlns=\"http://www.w3.org/2000/svg\" width=\"%.0f\" height=\"%.0f\" viewBox=\"0 0 %.0f %.0f\" "+
		"font-family=\"Helvetica, Arial, sans-serif\" font-size=\"12\" fill=\"%s\">\n"+
		"<rect width=\"100%%\" height=\"100%%\" fill=\"#ffffff\"/>\n%s</svg>\n", d.width, d.height, d.width, d.height, ink, d.b.String())
}

// ccStyles are the colour and the mark of each congestion control.
var ccStyles = map[string]struct{ colour, mark string }{
	"cubic":   {"#0969da", "disc"},
	"newreno": {"#7d4e9e", "square"},
	"bbr":     {"#d4572a", "triangle"},
}

// A panel is a plot of a drawing.
type panel struct {
	x, y, w, h float64 // the area of the data
	title      string
	xNames     []string // of places 0, 1, 2 and so on
	xEnd       float64  // without names: the x axis runs from 0 to here
	xStep      float64
	xTitle     string
	yTitle     string
	yLow       float64 // of a logarithmic axis; 0: it is linear
	yHigh      float64
	yStep      float64
}

func (p *panel) px(v float64) float64 {
	if n := len(p.xNames); n > 0 {
		return p.x + (v+0.5)*p.w/float64(n)
	}
	return p.x + v/p.xEnd*p.w
}

func (p *panel) py(v float64) float64 {
	if p.yLow > 0 {
		v = max(v, p.yLow)
		return p.y + p.h*math.Log(p.yHigh/v)/math.Log(p.yHigh/p.yLow)
	}
	return p.y + p.h*(1-v/p.yHigh)
}

// frame draws all but the data.
func (p *panel) frame(d *drawing) {
	d.text(p.x, p.y-10, "start", bold, p.title)
	tick := func(v float64, name string) {
		d.line(p.x, p.py(v), p.x+p.w, p.py(v), `stroke="`+grid+`"`)
		d.text(p.x-6, p.py(v)+4, "end", plain, name)
	}
	if p.yLow > 0 {
		for v := p.yHigh; v > p.yLow*0.99; v /= 10 {
			tick(v, percent(v))
		}
	} else {
		for v := 0.0; v < p.yHigh*1.001; v += p.yStep {
			tick(v, percent(v))
		}
	}
	for i, name := range p.xNames {
		d.text(p.px(float64(i)), p.y+p.h+17, "middle", plain, name)
	}
	for v := 0.0; len(p.xNames) == 0 && v < p.xEnd*1.001; v += p.xStep {
		d.line(p.px(v), p.y+p.h, p.px(v), p.y+p.h+4, `stroke="`+pale+`"`)
		d.text(p.px(v), p.y+p.h+17, "middle", plain, strconv.FormatFloat(v, 'g', -1, 64))
	}
	d.line(p.x, p.y+p.h, p.x+p.w, p.y+p.h, `stroke="`+pale+`"`)
	d.text(p.x+p.w/2, p.y+p.h+34, "middle", plain, p.xTitle)
	fmt.Fprintf(&d.b, "<text transform=\"translate(%.1f %.1f) rotate(-90)\" text-anchor=\"middle\" %s>%s</text>\n",
		p.x-44, p.y+p.h/2, plain, html.EscapeString(p.yTitle))
}

// percent prints a fraction.
func percent(v float64) string { return strconv.FormatFloat(math.Round(v*1e6)/1e4, 'g', -1, 64) + " %" }

// goldenLines are the lines of the golden file by name.
type goldenLines map[string]string

// number returns a line that is one number, or the number behind a word.
func (g goldenLines) number(line, word string) (float64, bool) {
	f := strings.Fields(g[line])
	i := 0
	if word != "" {
		i = slices.Index(f, word) + 1
		if i == 0 {
			return 0, false
		}
	}
	if i >= len(f) {
		return 0, false
	}
	v, err := strconv.ParseFloat(f[i], 64)
	return v, err == nil
}

// list returns the numbers behind a word.
func (g goldenLines) list(line, word string) (list []float64) {
	f := strings.Fields(g[line])
	for _, s := range f[slices.Index(f, word)+1:] {
		v, err := strconv.ParseFloat(s, 64)
		if err != nil {
			break
		}
		list = append(list, v)
	}
	return list
}

// drawLoss draws goodput over loss.
func drawLoss(g goldenLines) string {
	return drawGrid(g, "Goodput over loss, without reordering", "packets lost in each direction", gridLoss,
		func(v float64) string { return "reorder=0%/loss=" + gridPercent(v) })
}

// drawReorder draws goodput over reordering.
func drawReorder(g goldenLines) string {
	return drawGrid(g, "Goodput over reordering, without loss", "packets held back in each direction", gridReorder,
		func(v float64) string { return "reorder=" + gridPercent(v) + "/loss=0%" })
}

// drawGrid draws a panel for each round trip, in it a curve for each congestion control and queue.
func drawGrid(g goldenLines, title, xTitle string, values []float64, name func(float64) string) string {
	d := &drawing{width: 900, height: 640}
	d.text(20, 28, "start", `font-weight="bold" font-size="15"`, title)
	legend(d, 20, 50)
	var names []string
	for _, v := range values {
		names = append(names, percent(v))
	}
	for i, l := range gridLinks {
		p := panel{x: 70 + float64(i%2)*440, y: 100 + float64(i/2)*280, w: 370, h: 190, xNames: names, xTitle: xTitle,
			title: fmt.Sprintf("%d ms, %d Mbit/s", l.rtt/ms, l.rate/1e6), yTitle: "goodput, of the link", yLow: 0.001, yHigh: 1}
		p.frame(d)
		for _, queue := range gridQueues {
			for _, cc := range goodputCCs {
				var points [][2]float64
				for j, v := range values {
					if y, ok := g.number(fmt.Sprintf("%s/rtt=%dms/queue=%g/%s", cc, l.rtt/ms, queue, name(v)), ""); ok {
						points = append(points, [2]float64{p.px(float64(j)), p.py(y)})
					}
				}
				dash := ""
				if queue < 1 {
					dash = "5 4"
				}
				d.curve(points, ccStyles[cc].colour, dash, ccStyles[cc].mark)
			}
		}
	}
	return d.String()
}

// legend explains colours and dashes, in a line.
func legend(d *drawing, x, y float64) {
	for _, cc := range goodputCCs {
		c := ccStyles[cc]
		d.line(x, y-4, x+26, y-4, `stroke-width="2" stroke="`+c.colour+`"`)
		d.mark(x+13, y-4, c.colour, c.mark)
		d.text(x+32, y, "start", "", cc)
		x += 110
	}
	for _, q := range []struct{ name, style string }{{"queue of 1 BDP", ""}, {"queue of 0.1 BDP", `stroke-dasharray="5 4"`}} {
		d.line(x, y-4, x+26, y-4, `stroke-width="2" stroke="`+pale+`" `+q.style)
		d.text(x+32, y, "start", "", q.name)
		x += 160
	}
}

// The colours of the first and the second flow of an algorithm, and of any that follow.
var flowColours = []string{"#0969da", "#d4572a", "#2da44e", "#bf8700", "#7d4e9e", "#54aeff", "#f2a98a", "#8ed1a0", "#e0c060", "#c3a3d9"}

// drawLate draws what the first and the second flow have when the second begins late.
func drawLate(g goldenLines) string {
	d := &drawing{width: 900, height: 60 + 240*float64(len(goodputCCs))}
	d.text(20, 28, "start", `font-weight="bold" font-size="15"`, fmt.Sprintf("A second flow begins after %d s, on %d Mbit/s and %d ms",
		shareLate/sec, int64(shareRate/1e6), shareRTT/ms))
	for i, cc := range goodputCCs {
		for j, queue := range shareQueues {
			line := fmt.Sprintf("late-%s/shared/queue=%g", cc, queue)
			p := panel{x: 70 + float64(j)*440, y: 80 + float64(i)*240, w: 370, h: 150, xEnd: float64(shareTime / sec), xStep: 10,
				title: fmt.Sprintf("%s, queue of %g BDP", cc, queue), xTitle: "seconds", yTitle: "of the link", yHigh: 1, yStep: 0.25}
			p.frame(d)
			for k := range 2 {
				var points [][2]float64
				for at, v := range g.list(line, fmt.Sprintf("flow%d", k+1)) {
					if k == 0 || at >= int(shareLate/sec) {
						points = append(points, [2]float64{p.px(float64(at) + 0.5), p.py(v / 100)})
					}
				}
				d.curve(points, flowColours[k], "", "")
			}
			if v, ok := g.number(line, "fair"); ok {
				x := p.px(v + float64(shareLate/sec))
				d.line(x, p.y, x, p.y+p.h, `stroke="`+pale+`" stroke-dasharray="2 3"`)
				d.text(x+4, p.y+10, "start", plain, fmt.Sprintf("fair after %g s", v))
			} else {
				d.text(p.x+p.w, p.y-10, "end", plain, "never fair")
			}
		}
	}
	return d.String()
}

// drawShares draws how flows that run side by side divide the link.
func drawShares(g goldenLines) string {
	scenarios := slices.DeleteFunc(shareScenarios(), func(sc shareJob) bool { return sc.late || len(sc.ccs) == 1 })
	d := &drawing{width: 900, height: 90 + float64(len(scenarios)*len(shareQueues))*26 + 20*float64(len(scenarios))}
	d.text(20, 28, "start", `font-weight="bold" font-size="15"`, fmt.Sprintf("How flows that run side by side divide %d Mbit/s at %d ms",
		int64(shareRate/1e6), shareRTT/ms))
	const left, width = 250, 520
	d.text(left+width+14, 58, "start", plain, "Jain's index")
	y := 70.0
	for _, sc := range scenarios {
		for _, queue := range shareQueues {
			line := fmt.Sprintf("%s/shared/queue=%g", sc.name, queue)
			d.text(left-10, y+15, "end", "", fmt.Sprintf("%s, queue of %g BDP", sc.label(), queue))
			x := float64(left)
			for i, v := range g.list(line, "shares") {
				d.rect(x, y, v*width-1, 20, flowColours[i%len(flowColours)])
				if name := sc.ccs[i]; name != sc.ccs[len(sc.ccs)-1-i] && v > 0.15 {
					d.text(x+8, y+14, "start", `fill="#ffffff"`, fmt.Sprintf("%s %.0f %%", name, 100*v))
				} else if v > 0.06 {
					d.text(x+8, y+14, "start", `fill="#ffffff"`, fmt.Sprintf("%.0f %%", 100*v))
				}
				x += v * width
			}
			if v, ok := g.number(line, "jain"); ok {
				d.text(left+width+14, y+15, "start", "", strconv.FormatFloat(v, 'f', 3, 64))
			}
			y += 26
		}
		y += 20
	}
	return d.String()
}

// label names the scenario for a reader.
func (sc *shareJob) label() string {
	n, cc, counted := strings.Cut(sc.name, "x")
	if counted && strings.Trim(n, "0123456789") == "" {
		return n + " × " + cc
	}
	return strings.ReplaceAll(sc.name, "+", " beside ")
}

// drawQueue draws how long data waits in the queue.
func drawQueue(g goldenLines) string {
	scenarios := slices.DeleteFunc(shareScenarios(), func(sc shareJob) bool { return sc.late })
	d := &drawing{width: 900, height: 110 + float64(len(scenarios))*30}
	d.text(20, 28, "start", `font-weight="bold" font-size="15"`, fmt.Sprintf("How long data waits in the queue of %d Mbit/s at %d ms",
		int64(shareRate/1e6), shareRTT/ms))
	d.text(20, 48, "start", plain, "Bars are means, marks the 95th percentile; the axis ends where the queue is full.")
	for j, queue := range shareQueues {
		left, width := 150+float64(j)*390, 330.0
		full := queue * float64(shareRTT) / float64(ms)
		bottom := 88 + float64(len(scenarios))*30
		d.text(left, 76, "start", bold, fmt.Sprintf("queue of %g BDP", queue))
		for i := range 5 {
			v := float64(i) * full / 4
			d.line(left+width*v/full, 84, left+width*v/full, bottom, `stroke="`+grid+`"`)
			name := strconv.FormatFloat(v, 'g', -1, 64)
			if i == 4 {
				name += " ms"
			}
			d.text(left+width*v/full, bottom+15, "middle", plain, name)
		}
		for i, sc := range scenarios {
			y := 88 + float64(i)*30
			line := fmt.Sprintf("%s/shared/queue=%g", sc.name, queue)
			if j == 0 {
				d.text(left-10, y+15, "end", "", sc.label())
			}
			mean, _ := g.number(line, "delay")
			p95, _ := g.number(line, "p95")
			colour := ccStyles[sc.ccs[len(sc.ccs)-1]].colour
			d.line(left, y+10, left+width*p95/full, y+10, `stroke="`+colour+`"`)
			d.rect(left, y+2, width*mean/full, 16, colour)
			d.line(left+width*p95/full, y+2, left+width*p95/full, y+18, `stroke-width="2" stroke="`+colour+`"`)
		}
	}
	return d.String()
}
