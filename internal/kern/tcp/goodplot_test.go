package tcp

import (
	"bytes"
	"fmt"
	"os"
	"slices"
	"strconv"
	"strings"
	"testing"
)

// The drawings of docs/goodput.md show what testdata/goodput.golden says and nothing else, so each
// run can compare them with it.

// goodputDrawings are the drawings' files, and the functions that draw them.
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

// ccStyles are two shades of a colour and a mark for each congestion control.
var ccStyles = map[string]struct{ colour, tint, mark string }{
	"cubic":   {"#0969da", "#a8d0ff", "disc"},
	"newreno": {"#7d4e9e", "#d8c3e8", "square"},
	"bbr":     {"#d4572a", "#f6c3ae", "triangle"},
}

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

// drawGrid draws a panel for each round trip, and in it a curve for each congestion control and
// queue. name returns the end of a job's name for a value on the x axis.
func drawGrid(g goldenLines, title, xTitle string, values []float64, name func(float64) string) string {
	d := &svgDrawing{width: 900, height: 640}
	d.text(20, 28, "start", svgLarge, title)
	legend(d, 20, 50)
	var names []string
	for _, v := range values {
		names = append(names, svgPercent(v))
	}
	for i, l := range gridLinks {
		p := svgPanel{
			x: 70 + float64(i%2)*440, y: 100 + float64(i/2)*280, w: 370, h: 190,
			title:  fmt.Sprintf("round trip %d ms, %d Mbit/s", l.rtt/ms, l.rate/1e6),
			xTitle: xTitle, xNames: names,
			yTitle: "goodput, of the link", yLow: 0.001, yHigh: 1,
		}
		p.frame(d)
		for _, queue := range gridQueues {
			for _, cc := range goodputCCs {
				var points [][2]float64
				for j, v := range values {
					job := fmt.Sprintf("%s/rtt=%dms/queue=%g/%s", cc, l.rtt/ms, queue, name(v))
					if y, ok := g.number(job, ""); ok {
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
func legend(d *svgDrawing, x, y float64) {
	for _, cc := range goodputCCs {
		c := ccStyles[cc]
		d.line(x, y-4, x+26, y-4, `stroke-width="2" stroke="`+c.colour+`"`)
		d.mark(x+13, y-4, c.colour, c.mark)
		d.text(x+32, y, "start", "", cc)
		x += 110
	}
	for _, q := range []struct{ name, style string }{
		{"queue of 1 BDP", ""}, {"queue of 0.1 BDP", `stroke-dasharray="5 4"`},
	} {
		d.line(x, y-4, x+26, y-4, `stroke-width="2" stroke="`+svgPale+`" `+q.style)
		d.text(x+32, y, "start", "", q.name)
		x += 160
	}
}

// sharedLink says which link it is that flows share.
var sharedLink = fmt.Sprintf("%d Mbit/s, round trip %d ms", int64(shareRate/1e6), shareRTT/ms)

// flowColours are the colours of the first and the second flow.
var flowColours = [2]string{"#0969da", "#d4572a"}

// drawLate draws what the first and the second flow get when the second one begins late.
func drawLate(g goldenLines) string {
	d := &svgDrawing{width: 900, height: 70 + 240*float64(len(goodputCCs))}
	d.text(20, 28, "start", svgLarge, fmt.Sprintf("A second flow begins after %d s (%s)", shareLate/sec, sharedLink))
	for k, name := range []string{"first flow", "second flow"} {
		x := 20 + float64(k)*110
		d.line(x, 46, x+26, 46, `stroke-width="2" stroke="`+flowColours[k]+`"`)
		d.text(x+32, 50, "start", "", name)
	}
	for i, cc := range goodputCCs {
		for j, queue := range shareQueues {
			p := svgPanel{
				x: 70 + float64(j)*440, y: 96 + float64(i)*240, w: 370, h: 150,
				title:  fmt.Sprintf("%s, queue of %g BDP", cc, queue),
				xTitle: "seconds", xEnd: float64(shareTime / sec), xStep: 10,
				yTitle: "goodput, of the link", yHigh: 1, yStep: 0.25,
			}
			p.frame(d)
			drawLatePanel(d, &p, g, fmt.Sprintf("late-%s/shared/queue=%g", cc, queue))
		}
	}
	return d.String()
}

func drawLatePanel(d *svgDrawing, p *svgPanel, g goldenLines, job string) {
	late := float64(shareLate / sec)
	if v, ok := g.number(job, "fair"); ok {
		x := p.px(late + v)
		d.line(x, p.y, x, p.y+p.h, `stroke="`+svgPale+`" stroke-dasharray="2 3"`)
		d.text(p.x+p.w, p.y-10, "end", svgPlain, fmt.Sprintf("fair after %g s", v))
	} else {
		d.text(p.x+p.w, p.y-10, "end", svgPlain, "never fair")
	}
	for k, colour := range flowColours {
		var points [][2]float64
		for at, v := range g.list(job, fmt.Sprintf("flow%d", k+1)) {
			if k == 0 || float64(at) >= late {
				points = append(points, [2]float64{p.px(float64(at) + 0.5), p.py(v / 100)})
			}
		}
		d.curve(points, colour, "", "")
	}
}

// scenariosWithout returns the scenarios except those that drop selects.
func scenariosWithout(drop func(shareJob) bool) []shareJob {
	return slices.DeleteFunc(shareScenarios(), drop)
}

// label names the scenario for a reader.
func (sc *shareJob) label() string {
	if n := len(sc.ccs); sc.ccs[0] == sc.ccs[n-1] {
		return fmt.Sprintf("%d × %s", n, sc.ccs[0])
	}
	return strings.Join(sc.ccs, " beside ")
}

// drawShares draws how flows that run side by side divide the link.
func drawShares(g goldenLines) string {
	scenarios := scenariosWithout(func(sc shareJob) bool { return sc.late || len(sc.ccs) == 1 })
	d := &svgDrawing{width: 900, height: 84 + float64(len(scenarios))*72}
	d.text(20, 28, "start", svgLarge, "How flows that run side by side divide the link ("+sharedLink+")")
	const left, width = 270, 510
	d.text(left+width+14, 58, "start", svgPlain, "Jain's index")
	y := 70.0
	for _, sc := range scenarios {
		for _, queue := range shareQueues {
			job := fmt.Sprintf("%s/shared/queue=%g", sc.name, queue)
			d.text(left-10, y+15, "end", "", fmt.Sprintf("%s, queue of %g BDP", sc.label(), queue))
			x := float64(left)
			for i, v := range g.list(job, "shares") {
				c := ccStyles[sc.ccs[i]]
				fill, style := c.colour, svgLight
				if i%2 == 1 && sc.ccs[0] == sc.ccs[i] {
					fill, style = c.tint, ""
				}
				d.rect(x, y, max(v*width-1, 0), 20, fill)
				if v > 0.06 {
					d.text(x+6, y+14, "start", style, fmt.Sprintf("%.0f %%", 100*v))
				}
				x += v * width
			}
			if v, ok := g.number(job, "jain"); ok {
				d.text(left+width+14, y+15, "start", "", strconv.FormatFloat(v, 'f', 3, 64))
			}
			y += 26
		}
		y += 20
	}
	return d.String()
}

// drawQueue draws how long data waits in the queue.
func drawQueue(g goldenLines) string {
	scenarios := scenariosWithout(func(sc shareJob) bool { return sc.late })
	bottom := 88 + float64(len(scenarios))*28
	d := &svgDrawing{width: 900, height: bottom + 30}
	d.text(20, 28, "start", svgLarge, "How long data waits in the queue ("+sharedLink+")")
	d.text(20, 48, "start", svgPlain,
		"Bars are means, marks are 95th percentiles. At the end of the axis the queue is full.")
	for j, queue := range shareQueues {
		left := 160 + float64(j)*380
		drawQueuePanel(d, g, scenarios, queue, left, bottom)
		for i, sc := range scenarios {
			if j == 0 {
				d.text(left-10, 102+float64(i)*28, "end", "", sc.label())
			}
		}
	}
	return d.String()
}

// drawQueuePanel draws the bars for a queue, from left to the right, and the axis at bottom.
func drawQueuePanel(d *svgDrawing, g goldenLines, scenarios []shareJob, queue, left, bottom float64) {
	const width = 320
	full := queue * float64(shareRTT) / float64(ms)
	d.text(left, 76, "start", svgBold, fmt.Sprintf("queue of %g BDP", queue))
	for i := range 5 {
		x := left + width*float64(i)/4
		d.line(x, 84, x, bottom, `stroke="`+svgGrid+`"`)
		name := fmt.Sprintf("%g", full*float64(i)/4)
		if i == 4 {
			name += " ms"
		}
		d.text(x, bottom+16, "middle", svgPlain, name)
	}
	for i, sc := range scenarios {
		y := 88 + float64(i)*28
		job := fmt.Sprintf("%s/shared/queue=%g", sc.name, queue)
		mean, _ := g.number(job, "delay")
		p95, _ := g.number(job, "p95")
		colour := ccStyles[sc.ccs[len(sc.ccs)-1]].colour
		d.rect(left, y+2, width*mean/full, 16, colour)
		d.line(left, y+10, left+width*p95/full, y+10, `stroke="`+colour+`"`)
		d.line(left+width*p95/full, y+2, left+width*p95/full, y+18, `stroke-width="2" stroke="`+colour+`"`)
	}
}
