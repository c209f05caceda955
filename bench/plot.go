package main

import (
	"fmt"
	"math"
	"os"
	"path/filepath"
	"strings"
)

// A chart is an SVG file that belongs to the report.
type chart struct{ title, path string }

// writeCharts writes the charts of a report into a folder: bars for each scene, lines for each
// series of growth, and latencies.
func writeCharts(dir string, rep *report) ([]chart, error) {
	var charts []chart
	add := func(title, name, drawing string) error {
		if drawing == "" {
			return nil
		}
		path := filepath.Join(dir, name+".svg")
		charts = append(charts, chart{title, filepath.ToSlash(path)})
		return os.WriteFile(path, []byte(drawing), 0o666)
	}
	var places, lines []string
	byPlace, byLine := map[string][]*result{}, map[string][]*result{}
	for i := range rep.Results {
		r := &rep.Results[i]
		if r.Series != "" {
			lines = collect(lines, byLine, r.Series, r)
		} else if !r.growth() {
			places = collect(places, byPlace, r.Scene, r)
		}
	}
	for _, p := range places {
		if err := add(p, fileName(p), barCharts(byPlace[p])); err != nil {
			return nil, err
		}
		if err := add(p+": time of a round trip", fileName(p+" latency"), latencyCharts(byPlace[p])); err != nil {
			return nil, err
		}
	}
	for _, l := range lines {
		if err := add(l, fileName(l), seriesChart(l, byLine[l])); err != nil {
			return nil, err
		}
	}
	return charts, nil
}

// collect adds a result to a group, and the group to the list if it is new.
func collect(list []string, groups map[string][]*result, name string, r *result) []string {
	if len(groups[name]) == 0 {
		list = append(list, name)
	}
	groups[name] = append(groups[name], r)
	return list
}

// fileName makes a file's name from a title.
func fileName(title string) string {
	words := strings.FieldsFunc(strings.ToLower(title), func(r rune) bool {
		return !(r >= 'a' && r <= 'z' || r >= '0' && r <= '9')
	})
	return strings.Join(words, "-")
}

// These are the colours of the peers by role, with a second one for a second peer of the role.
var colours = map[role][2]string{
	ours: {"#0969da", "#80ccff"}, kernel: {"#57606a", "#afb8c1"}, gvisor: {"#d4572a", "#f2a98a"},
	ceiling: {"#afb8c1", "#d0d7de"},
	before:  {"#8250df", "#d8b9ff"},
}

// peerColours returns a colour for each peer.
func peerColours(peers []peerResult) []string {
	seen := map[role]int{}
	var c []string
	for _, p := range peers {
		c = append(c, colours[p.Role][min(seen[p.Role], 1)])
		seen[p.Role]++
	}
	return c
}

// These are the sizes of a panel of bars.
const (
	panelWidth = 450
	labelWidth = 96
	valueWidth = 96
	barHeight  = 20
	headHeight = 48
)

// barCharts draws a panel for each row, two side by side, each with a bar for each peer, and a line
// from the least to the most.
func barCharts(results []*result) string {
	tallest := 0
	for _, r := range results {
		tallest = max(tallest, len(r.Peers))
	}
	panel := float64(headHeight + tallest*(barHeight+4) + 8)
	s := &svg{w: 2*panelWidth + 20, h: 10 + panel*float64((len(results)+1)/2)}
	for i, r := range results {
		bars(s, 10+float64(i%2)*panelWidth, 10+float64(i/2)*panel, r)
	}
	return s.String()
}

func bars(s *svg, x, y float64, r *result) {
	s.text(x, y+14, "start", "bold", r.Row)
	s.text(x, y+30, "start", "normal", fmt.Sprintf("%s; %s, %s is better", r.Title, r.Unit, r.better()))
	sums, colour := summarize(r), peerColours(r.Peers)
	top := 0.0
	for _, v := range sums {
		if v.most > top {
			top = v.most
		}
	}
	scale := (panelWidth - labelWidth - valueWidth - 10) / math.Max(top, 1e-9)
	y += headHeight - 8
	for i, p := range r.Peers {
		v := sums[i]
		if math.IsNaN(v.median) {
			continue
		}
		s.text(x+labelWidth-6, y+14, "end", "normal", p.Name)
		s.rect(x+labelWidth, y, v.median*scale, barHeight, colour[i])
		mid := y + barHeight/2
		s.line(x+labelWidth+v.least*scale, mid, x+labelWidth+v.most*scale, mid, inkColour, 1.5)
		t := number(v.median)
		if p.Role != kernel && !math.IsNaN(v.of[kernel].median) {
			t += " (" + times(v.of[kernel].median) + ")"
		}
		s.text(x+labelWidth+v.most*scale+6, y+14, "start", "normal", t)
		y += barHeight + 4
	}
}

// A curve is a line of a plot.
type curve struct {
	name, colour string
	points       [][2]float64
}

// A plotArea is a plot with a logarithmic or linear axis each way.
type plotArea struct {
	title, xTitle, yTitle string

	xNames []string
	logY   bool
	curves []curve
}

// These are the sizes of a plot.
const (
	plotWidth  = 640
	plotHeight = 320
	plotLeft   = 64
	plotRight  = 130
	plotTop    = 40
	plotBottom = 48
)

// draw draws the plot at a height. Positions on the x axis are numbers of ticks.
func (p *plotArea) draw(s *svg, y0 float64) {
	low, high := p.bounds()
	left, right := float64(plotLeft), float64(plotWidth-plotRight)
	top, bottom := y0+plotTop, y0+plotHeight-plotBottom
	x := func(tick float64) float64 {
		return left + 12 + tick*(right-left-24)/math.Max(1, float64(len(p.xNames)-1))
	}
	y := func(v float64) float64 {
		if p.logY {
			return bottom - (math.Log(v)-math.Log(low))/(math.Log(high)-math.Log(low))*(bottom-top)
		}
		return bottom - (v-low)/(high-low)*(bottom-top)
	}
	s.text(left, y0+18, "start", "bold", p.title)
	s.text(left, y0+34, "start", "normal", p.yTitle)
	for _, v := range ticks(low, high, p.logY) {
		s.line(left, y(v), right, y(v), gridColour, 1)
		s.text(left-6, y(v)+4, "end", "normal", fmt.Sprintf("%g", v))
	}
	for i, name := range p.xNames {
		s.text(x(float64(i)), bottom+18, "middle", "normal", name)
	}
	s.text((left+right)/2, bottom+36, "middle", "normal", p.xTitle)
	for i, c := range p.curves {
		var points [][2]float64
		for _, q := range c.points {
			points = append(points, [2]float64{x(q[0]), y(q[1])})
		}
		s.path(points, c.colour)
		at := top + 10 + float64(i)*18
		s.rect(right+14, at-9, 12, 12, c.colour)
		s.text(right+32, at+2, "start", "normal", c.name)
	}
}

// bounds returns the ends of the y axis.
func (p *plotArea) bounds() (low, high float64) {
	low, high = math.Inf(1), math.Inf(-1)
	for _, c := range p.curves {
		for _, q := range c.points {
			low, high = math.Min(low, q[1]), math.Max(high, q[1])
		}
	}
	if !p.logY {
		return 0, math.Max(high*1.05, 1e-9)
	}
	low, high = math.Max(low, 1e-3), math.Max(high, 1e-3)
	return math.Pow(10, math.Floor(math.Log10(low))), math.Pow(10, math.Ceil(math.Log10(high*1.0001)))
}

// ticks returns round numbers between the ends of an axis.
func ticks(low, high float64, log bool) (v []float64) {
	if log {
		for t := low; t <= high*1.001; t *= 10 {
			v = append(v, t)
		}
		return v
	}
	step := math.Pow(10, math.Floor(math.Log10(high)))
	for high/step < 4 {
		step /= 2
	}
	for t := 0.0; t <= high; t += step {
		v = append(v, t)
	}
	return v
}

// seriesChart draws the rows of a series, a line for each peer.
func seriesChart(title string, results []*result) string {
	first := results[0]
	p := plotArea{title: title, xTitle: first.XTitle,
		yTitle: fmt.Sprintf("%s, %s is better", first.Unit, first.better())}
	at := map[string]int{}
	for tick, r := range results {
		p.xNames = append(p.xNames, fmt.Sprint(r.X))
		sums, colour := summarize(r), peerColours(r.Peers)
		for i, q := range r.Peers {
			if math.IsNaN(sums[i].median) {
				continue
			}
			n, ok := at[q.Name]
			if !ok {
				n = len(p.curves)
				at[q.Name] = n
				p.curves = append(p.curves, curve{name: q.Name, colour: colour[i]})
			}
			p.curves[n].points = append(p.curves[n].points, [2]float64{float64(tick), sums[i].median})
		}
	}
	if len(p.curves) == 0 {
		return ""
	}
	s := &svg{w: plotWidth, h: plotHeight}
	p.draw(s, 0)
	return s.String()
}

// latencyCharts draws a plot for each row that has latencies, a line for each peer.
func latencyCharts(results []*result) string {
	var plots []plotArea
	for _, r := range results {
		p := plotArea{title: r.Row + ": " + r.Title, xTitle: "percentile", yTitle: "µs, less is better", logY: true}
		for _, q := range percentiles {
			p.xNames = append(p.xNames, fmt.Sprint(q))
		}
		sums, colour := summarize(r), peerColours(r.Peers)
		for i, q := range r.Peers {
			c := curve{name: q.Name, colour: colour[i]}
			for tick, v := range sums[i].latency {
				c.points = append(c.points, [2]float64{float64(tick), v})
			}
			if len(c.points) > 0 {
				p.curves = append(p.curves, c)
			}
		}
		if len(p.curves) > 0 {
			plots = append(plots, p)
		}
	}
	if len(plots) == 0 {
		return ""
	}
	s := &svg{w: plotWidth, h: float64(plotHeight * len(plots))}
	for i := range plots {
		plots[i].draw(s, float64(i*plotHeight))
	}
	return s.String()
}
