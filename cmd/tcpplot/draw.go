package main

import (
	"fmt"
	"math"
	"slices"
	"strings"
)

// These are the sizes of the drawing, in pixels.
const (
	width       = 1280
	marginLeft  = 84
	marginRight = 84

	windowTop, windowBottom = 92, 312
	ratesTop, ratesBottom   = 366, 546
	seqTop, seqBottom       = 600, 1040
	height                  = 1076
)

// draw returns the drawing of a history.
func draw(h *history) string {
	s := new(svg)
	s.text(marginLeft, 28, "start", `font-size="17" font-weight="bold"`, h.title)
	s.text(marginLeft, 50, "start", `fill="#57606a"`, h.summary())
	h.drawWindow(s)
	h.drawRates(s)
	h.drawSequence(s)
	return s.file(width, height, h.title)
}

// summary returns the history in one line.
func (h *history) summary() string {
	d := h.to - h.from
	parts := []string{
		fmt.Sprintf("%s in %s", siUnit(float64(h.bytesSent), "B"), seconds(d)),
		fmt.Sprintf("%d segments sent again (%s)", h.segsAgain, siUnit(float64(h.bytesAgain), "B")),
		fmt.Sprintf("%d time-outs", h.rtos),
	}
	if h.undos > 0 {
		parts = append(parts, fmt.Sprintf("%d reductions of the window taken back", h.undos))
	}
	return strings.Join(append(parts, fmt.Sprintf("%d events", h.events)), "  ·  ")
}

// drawWindow draws the first panel.
func (h *history) drawWindow(s *svg) {
	flight := max(h.flight.max(h.from, h.to), 1)
	top := flight
	for _, v := range []series{h.cwnd, h.ssthresh} {
		// A window that is never used up may lie far above the rest, and would make that flat.
		top = max(top, min(v.max(h.from, h.to), 2*flight))
	}
	p := newPanel(s, h, windowTop, windowBottom, 0, top*1.08, "Window")
	p.shade(h)
	p.axes(bytesTick, false)
	s.clip(p.left, p.top, p.right-p.left, p.bottom-p.top, func() {
		p.area(h.flight, p.y, haze)
		p.steps(h.ssthresh, p.y, orange, 1.3, dashed)
		p.steps(h.cwnd, p.y, blue, 1.8, "")
		for _, m := range h.timeouts {
			p.s.line(p.x.at(m.t), p.top, p.x.at(m.t), p.bottom, red, 1.2, dashed)
		}
		p.crosses(h)
		for _, m := range h.undone {
			p.triangle(m.t, min(m.v, p.y.hi))
		}
	})
	p.rug(h.again)
	p.timeoutNames(h)
	name := "congestion window"
	if most := h.cwnd.max(h.from, h.to); most > p.y.hi {
		name += ", up to " + siUnit(most, "B")
	}
	p.legend(blue, "", name, false)
	p.legend(orange, dashed, "slow start threshold", false)
	p.legend(haze, "", "in flight", true)
	p.legend(red, dashed, "time-out", false)
	p.legendMark(func(x, y float64) { p.s.line(x, y-5, x, y+5, red, 1, "") }, "sent again (below)")
	if len(h.lost) > 0 {
		p.legendMark(func(x, y float64) { p.cross(x, y) }, "found lost")
	}
	if len(h.undone) > 0 {
		p.legendMark(func(x, y float64) { p.s.path(triangle(x, y+3), green, 1.5, "") }, "reduction undone")
	}
	for _, name := range []string{"Recovery", "Loss", "CWR"} {
		if slices.ContainsFunc(h.phases, func(p phase) bool { return p.name == name }) {
			p.legend(phaseColours[name], "", name, true)
		}
	}
}

const dashed = `stroke-dasharray="5 3"`

func bytesTick(v float64) string { return siUnit(v, "B") }
func bitsTick(v float64) string  { return siUnit(v, "bit/s") }

// rug marks times below the panel.
func (p *panel) rug(list []span) {
	var d strings.Builder
	last := math.Inf(-1)
	for _, s := range list {
		if x := p.column(s.t); x != last && s.t >= p.x.lo && s.t <= p.x.hi {
			d.WriteString("M" + px(x) + " " + px(p.bottom+2) + "V" + px(p.bottom+9))
			last = x
		}
	}
	p.s.path(d.String(), red, 1, "")
}

// crosses draws a cross on the window for each loss, with some pixels between them.
func (p *panel) crosses(h *history) {
	last, i := math.Inf(-1), 0
	at := math.NaN()
	for _, s := range h.lost {
		for ; i < len(h.cwnd) && h.cwnd[i].t <= s.t; i++ {
			at = h.cwnd[i].v
		}
		if x := p.x.at(s.t); x >= last+6 && s.t >= p.x.lo && s.t <= p.x.hi && !math.IsNaN(at) {
			p.cross(x, p.y.at(min(at, p.y.hi)))
			last = x
		}
	}
}

func (p *panel) cross(x, y float64) {
	const r = 3.5
	stroke := func(dy float64) string { return "M" + px(x-r) + " " + px(y-dy) + "L" + px(x+r) + " " + px(y+dy) }
	p.s.path(stroke(r)+stroke(-r), red, 1.8, "")
}

func (p *panel) triangle(t, v float64) {
	if t >= p.x.lo && t <= p.x.hi {
		p.s.path(triangle(p.x.at(t), p.y.at(v)), green, 1.5, "")
	}
}

func triangle(x, y float64) string {
	return "M" + px(x-5) + " " + px(y) + "L" + px(x) + " " + px(y-9) + "L" + px(x+5) + " " + px(y) + "Z"
}

// legendMark is like legend, for a mark.
func (p *panel) legendMark(mark func(x, y float64), name string) {
	mark(p.legendX+7, p.top-14)
	p.s.text(p.legendX+20, p.top-10, "start", "", name)
	p.legendX += 38 + textWidth(name)
}

// timeoutNames labels the lines of timeouts, as far as there is room.
func (p *panel) timeoutNames(h *history) {
	last := math.Inf(-1)
	for _, m := range h.timeouts {
		if x := p.x.at(m.t); m.t >= p.x.lo && m.t <= p.x.hi && x > last+30 && x < p.right-30 {
			p.s.text(x+3, p.top+12, "start", `font-size="10" fill="`+red+`"`, m.text)
			last = x
		}
	}
}

// drawRates draws the second panel: rates at the left, round trips at the right.
func (h *history) drawRates(s *svg) {
	top := 1.0
	for _, v := range []series{h.pacing, h.delivery, h.throughput} {
		top = max(top, v.max(h.from, h.to))
	}
	p := newPanel(s, h, ratesTop, ratesBottom, 0, top*1.08, "Rates")
	rtts := max(h.rtt.max(h.from, h.to), h.srtt.max(h.from, h.to), 1e-6)
	y := scale{0, rtts * 1.15, p.bottom, p.top}
	p.shade(h)
	p.axes(bitsTick, false)
	p.rightAxis(y, seconds)
	s.text(p.right, p.top-10, "end", `font-weight="bold"`, "Round trips")
	s.clip(p.left, p.top, p.right-p.left, p.bottom-p.top, func() {
		p.steps(h.throughput, p.y, pale, 1.5, "")
		p.dots(h.rtt, y, purple)
		p.steps(h.srtt, y, purple, 1.3, "")
		p.steps(h.minRTT, y, purple, 1, dashed)
		p.steps(h.pacing, p.y, blue, 1.5, "")
		p.steps(h.delivery, p.y, teal, 1.5, "")
	})
	p.legend(pale, "", "acknowledged", false)
	if h.pacing.max(h.from, h.to) > 0 {
		p.legend(blue, "", "pacing rate", false)
	}
	if h.delivery.max(h.from, h.to) > 0 {
		p.legend(teal, "", "delivery rate", false)
	}
	p.legend(purple, `stroke-dasharray="0.1 5" stroke-linecap="round"`, "round trip (right)", false)
	p.legend(purple, "", "smoothed", false)
	p.legend(purple, dashed, "least", false)
}

// drawSequence draws the third panel.
func (h *history) drawSequence(s *svg) {
	lo, hi := math.Inf(1), math.Inf(-1)
	for _, list := range [][]span{h.sent, h.again, h.sacked} {
		for _, q := range list {
			if q.t >= h.from && q.t <= h.to {
				lo, hi = min(lo, q.lo), max(hi, q.hi)
			}
		}
	}
	for i, q := range h.acked {
		if q.t <= h.to && (i+1 == len(h.acked) || h.acked[i+1].t > h.from) {
			lo, hi = min(lo, q.v), max(hi, q.v)
		}
	}
	if lo > hi {
		lo, hi = 0, 1
	}
	pad := max((hi-lo)*0.04, 1)
	p := newPanel(s, h, seqTop, seqBottom, max(lo-pad, 0), hi+pad, "Sequence numbers")
	p.shade(h)
	p.axes(bytesTick, true)
	thick := 1.0
	if len(h.sent) < 1500 {
		thick = 2
	}
	s.clip(p.left, p.top, p.right-p.left, p.bottom-p.top, func() {
		for _, m := range h.timeouts {
			p.s.line(p.x.at(m.t), p.top, p.x.at(m.t), p.bottom, red, 1.2, dashed)
		}
		p.steps(h.edge, p.y, orange, 1.2, "")
		p.spans(h.sacked, purple, thick, 1.5)
		p.spans(h.sent, ink, thick, 1)
		p.steps(h.acked, p.y, green, 1.3, "")
		p.spans(h.lost, orange, thick+1, 4)
		p.spans(h.again, red, thick+0.5, 4)
	})
	p.legend(ink, "", "sent", false)
	p.legend(red, "", "sent again", false)
	p.legend(green, "", "acknowledged", false)
	p.legend(purple, "", "selectively", false)
	p.legend(orange, "", "window's right edge", false)
}
