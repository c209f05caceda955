package main

import (
	"math"
	"slices"
	"strings"
)

// These are the colours of texts, frames and lines.
const (
	ink  = "#24292f"
	grey = "#8c959f"
	grid = "#eaeef2"

	blue   = "#0969da"
	teal   = "#1b7c83"
	red    = "#cf222e"
	orange = "#e16f24"
	green  = "#1a7f37"
	purple = "#8250df"
	pale   = "#afb8c1"
	haze   = "#dde3e9"
)

// A panel is a part of the drawing. It has its own axis of values, and shares the axis of time.
type panel struct {
	s         *svg
	x, y      scale
	left, top float64
	right     float64
	bottom    float64
	legendX   float64
}

// newPanel makes a panel between two heights, for values from lo to hi, with a name above it.
func newPanel(s *svg, h *history, top, bottom, lo, hi float64, name string) *panel {
	if hi <= lo {
		hi = lo + 1
	}
	p := &panel{s: s, left: marginLeft, right: width - marginRight, top: top, bottom: bottom}
	p.x = scale{h.from, h.to, p.left, p.right}
	p.y = scale{lo, hi, bottom, top}
	s.text(p.left, top-10, "start", `font-weight="bold"`, name)
	p.legendX = p.left + 1.1*textWidth(name) + 24
	return p
}

// shade marks the times at which losses are repaired.
func (p *panel) shade(h *history) {
	for _, ph := range h.phases {
		x1, x2 := max(p.x.at(ph.from), p.left), min(p.x.at(ph.to), p.right)
		if x2 > x1 {
			p.s.rect(x1, p.top, max(x2-x1, 1), p.bottom-p.top, `fill="`+phaseColours[ph.name]+`"`)
		}
	}
}

var phaseColours = map[string]string{"Recovery": "#ffe9e3", "Loss": "#ffd0ca", "CWR": "#fff4c2"}

// axes draws the grid, the frame and the values at the left. It writes the time under the panel if
// the panel is the last.
func (p *panel) axes(format func(float64) string, withTime bool) {
	values, _ := p.y.ticks(int((p.bottom - p.top) / 36))
	for _, v := range values {
		y := p.y.at(v)
		p.s.line(p.left, y, p.right, y, grid, 1, "")
		p.s.text(p.left-8, y+4, "end", "", format(v))
	}
	times, step := p.x.ticks(10)
	instant := instants(p.x.hi, step)
	for _, t := range times {
		x := p.x.at(t)
		p.s.line(x, p.top, x, p.bottom, grid, 1, "")
		if withTime {
			p.s.text(x, p.bottom+18, "middle", "", instant(t))
		}
	}
	p.s.rect(p.left, p.top, p.right-p.left, p.bottom-p.top, `fill="none" stroke="`+grey+`"`)
}

// rightAxis draws a second axis of values at the right.
func (p *panel) rightAxis(y scale, format func(float64) string) {
	values, _ := y.ticks(int((p.bottom - p.top) / 36))
	for _, v := range values {
		p.s.line(p.right, y.at(v), p.right+4, y.at(v), grey, 1, "")
		p.s.text(p.right+8, y.at(v)+4, "start", "", format(v))
	}
}

// legend writes a name next to a sample of its colour: a line, or a box if the series is an area.
func (p *panel) legend(colour, attrs, name string, box bool) {
	if box {
		p.s.rect(p.legendX, p.top-19, 14, 11, `fill="`+colour+`"`)
	} else {
		p.s.line(p.legendX, p.top-14, p.legendX+16, p.top-14, colour, 2, attrs)
	}
	p.s.text(p.legendX+20, p.top-10, "start", "", name)
	p.legendX += 38 + textWidth(name)
}

// textWidth returns the approximate width of a text in pixels.
func textWidth(t string) float64 {
	w := 0.0
	for _, r := range t {
		switch {
		case strings.ContainsRune("fijlrt' ()", r):
			w += 4.3
		case strings.ContainsRune("mwMWµ", r):
			w += 10.5
		default:
			w += 7.2
		}
	}
	return w
}

// steps draws a series as a line of steps. A column of pixels shows the first, the last, the
// largest and the smallest of its values, so that the line has no more corners than the panel has
// room for.
func (p *panel) steps(v series, y scale, colour string, width float64, attrs string) {
	p.s.path(p.stepPath(v, y), colour, width, attrs)
}

// area fills the area below the steps of a series, which must have a value at each time.
func (p *panel) area(v series, y scale, colour string) {
	if d := p.stepPath(v, y); d != "" {
		x, _, _ := strings.Cut(d[1:], " ")
		p.s.path(d+"V"+px(p.bottom)+"H"+x+"Z", "none", 0, `style="fill:`+colour+`;fill-opacity:0.75"`)
	}
}

func (p *panel) stepPath(v series, y scale) string {
	var d strings.Builder
	pen := false // it is down
	to := func(cmd string, at float64) {
		d.WriteString(cmd)
		d.WriteString(px(at))
	}
	for i := 0; i < len(v); {
		// The value at the left edge of the panel, or the first of a column.
		if i+1 < len(v) && v[i+1].t <= p.x.lo {
			i++
			continue
		}
		if v[i].t > p.x.hi {
			break
		}
		x := max(p.column(v[i].t), p.left)
		first, lo, hi, last := math.NaN(), math.Inf(1), math.Inf(-1), math.NaN()
		for ; i < len(v) && max(p.column(v[i].t), p.left) == x; i++ {
			last = v[i].v
			if math.IsNaN(last) {
				continue
			}
			if math.IsNaN(first) {
				first = last
			}
			lo, hi = min(lo, last), max(hi, last)
		}
		if pen {
			to("H", x)
		}
		if math.IsNaN(first) {
			pen = false
			continue
		}
		if pen {
			to("V", y.at(first))
		} else {
			to("M", x)
			to(" ", y.at(first))
		}
		if lo != first || hi != first {
			to("V", y.at(lo))
			to("V", y.at(hi))
		}
		if pen = !math.IsNaN(last); pen && last != hi {
			to("V", y.at(last))
		}
	}
	if pen {
		to("H", p.right)
	}
	return d.String()
}

// column returns the beginning of the half pixel of a time.
func (p *panel) column(t float64) float64 { return math.Floor(p.x.at(t)*2) / 2 }

// spans draws ranges as vertical lines of at least least pixels. Ranges that touch in one column
// become one line, so that there are no more lines than the panel has room for.
func (p *panel) spans(list []span, colour string, width, least float64) {
	type bar struct{ x, top, bottom float64 }
	var bars []bar
	for _, s := range list {
		if s.t < p.x.lo || s.t > p.x.hi {
			continue
		}
		b := bar{p.column(s.t), p.y.at(s.hi), p.y.at(s.lo)}
		if short := least - (b.bottom - b.top); short > 0 {
			b.top -= short / 2
			b.bottom += short / 2
		}
		bars = append(bars, b)
	}
	slices.SortFunc(bars, func(a, b bar) int {
		if a.x != b.x {
			return cmpFloat(a.x, b.x)
		}
		return cmpFloat(a.top, b.top)
	})
	var d strings.Builder
	for i := 0; i < len(bars); {
		b := bars[i]
		for i++; i < len(bars) && bars[i].x == b.x && bars[i].top <= b.bottom+0.5; i++ {
			b.bottom = max(b.bottom, bars[i].bottom)
		}
		d.WriteString("M" + px(b.x) + " " + px(b.top) + "V" + px(b.bottom))
	}
	p.s.path(d.String(), colour, width, "")
}

func cmpFloat(a, b float64) int {
	switch {
	case a < b:
		return -1
	case a > b:
		return 1
	}
	return 0
}

// dots draws a dot for each value of a series. Values on the same pixel share a dot.
func (p *panel) dots(v series, y scale, colour string) {
	seen := map[[2]float64]bool{}
	var d strings.Builder
	for _, q := range v {
		if q.t < p.x.lo || q.t > p.x.hi {
			continue
		}
		at := [2]float64{math.Round(p.x.at(q.t)), math.Round(y.at(q.v))}
		if !seen[at] {
			seen[at] = true
			d.WriteString("M" + px(at[0]) + " " + px(at[1]) + "h0")
		}
	}
	p.s.path(d.String(), colour, 2.5, `stroke-linecap="round" stroke-opacity="0.6"`)
}
