package tcp

import (
	"fmt"
	"html"
	"math"
	"strconv"
	"strings"
)

// An svgDrawing is an SVG that is being made, in pixels from the upper left corner.
type svgDrawing struct {
	width, height float64
	b             strings.Builder
}

const (
	svgInk  = "#24292f"
	svgPale = "#57606a"
	svgGrid = "#e1e5e9"
)

func (d *svgDrawing) line(x1, y1, x2, y2 float64, style string) {
	fmt.Fprintf(&d.b, "<line x1=\"%.1f\" y1=\"%.1f\" x2=\"%.1f\" y2=\"%.1f\" %s/>\n", x1, y1, x2, y2, style)
}

func (d *svgDrawing) rect(x, y, w, h float64, fill string) {
	fmt.Fprintf(&d.b, "<rect x=\"%.1f\" y=\"%.1f\" width=\"%.1f\" height=\"%.1f\" fill=\"%s\"/>\n",
		x, y, w, h, fill)
}

// text writes s; anchor is start, middle or end.
func (d *svgDrawing) text(x, y float64, anchor, style, s string) {
	fmt.Fprintf(&d.b, "<text x=\"%.1f\" y=\"%.1f\" text-anchor=\"%s\" %s>%s</text>\n",
		x, y, anchor, style, html.EscapeString(s))
}

// Styles of text: titles of drawings and of panels, text on dark colours, and explanations.
const (
	svgLarge = `font-weight="bold" font-size="15"`
	svgBold  = `font-weight="bold"`
	svgLight = `fill="#ffffff"`
	svgPlain = `fill="` + svgPale + `"`
)

// curve draws a line through points, with a mark at each.
func (d *svgDrawing) curve(points [][2]float64, colour, dash, mark string) {
	var at []string
	for _, p := range points {
		at = append(at, fmt.Sprintf("%.1f,%.1f", p[0], p[1]))
	}
	if dash != "" {
		dash = ` stroke-dasharray="` + dash + `"`
	}
	fmt.Fprintf(&d.b, "<polyline points=\"%s\" fill=\"none\" stroke=\"%s\" stroke-width=\"2\" "+
		"stroke-linejoin=\"round\"%s/>\n", strings.Join(at, " "), colour, dash)
	for _, p := range points {
		d.mark(p[0], p[1], colour, mark)
	}
}

// mark draws a disc, a square, a triangle or nothing.
func (d *svgDrawing) mark(x, y float64, colour, mark string) {
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
func (d *svgDrawing) String() string {
	return fmt.Sprintf("<svg xmlns=\"http://www.w3.org/2000/svg\" width=\"%.0f\" height=\"%.0f\" "+
		"viewBox=\"0 0 %.0f %.0f\" font-family=\"Helvetica, Arial, sans-serif\" font-size=\"12\" fill=\"%s\">\n"+
		"<rect width=\"100%%\" height=\"100%%\" fill=\"#ffffff\"/>\n%s</svg>\n",
		d.width, d.height, d.width, d.height, svgInk, d.b.String())
}

// An svgPanel is one plot of a drawing.
type svgPanel struct {
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

func (p *svgPanel) px(v float64) float64 {
	if n := len(p.xNames); n > 0 {
		return p.x + (v+0.5)*p.w/float64(n)
	}
	return p.x + v/p.xEnd*p.w
}

func (p *svgPanel) py(v float64) float64 {
	if p.yLow > 0 {
		v = max(v, p.yLow)
		return p.y + p.h*math.Log(p.yHigh/v)/math.Log(p.yHigh/p.yLow)
	}
	return p.y + p.h*(1-v/p.yHigh)
}

// frame draws all but the data.
func (p *svgPanel) frame(d *svgDrawing) {
	d.text(p.x, p.y-10, "start", svgBold, p.title)
	tick := func(v float64, name string) {
		d.line(p.x, p.py(v), p.x+p.w, p.py(v), `stroke="`+svgGrid+`"`)
		d.text(p.x-6, p.py(v)+4, "end", svgPlain, name)
	}
	if p.yLow > 0 {
		for v := p.yHigh; v > p.yLow*0.99; v /= 10 {
			tick(v, svgPercent(v))
		}
	} else {
		for v := 0.0; v < p.yHigh*1.001; v += p.yStep {
			tick(v, svgPercent(v))
		}
	}
	for i, name := range p.xNames {
		d.text(p.px(float64(i)), p.y+p.h+17, "middle", svgPlain, name)
	}
	for v := 0.0; len(p.xNames) == 0 && v < p.xEnd*1.001; v += p.xStep {
		d.line(p.px(v), p.y+p.h, p.px(v), p.y+p.h+4, `stroke="`+svgPale+`"`)
		d.text(p.px(v), p.y+p.h+17, "middle", svgPlain, strconv.FormatFloat(v, 'g', -1, 64))
	}
	d.line(p.x, p.y+p.h, p.x+p.w, p.y+p.h, `stroke="`+svgPale+`"`)
	d.text(p.x+p.w/2, p.y+p.h+34, "middle", svgPlain, p.xTitle)
	fmt.Fprintf(&d.b, "<text transform=\"translate(%.1f %.1f) rotate(-90)\" text-anchor=\"middle\" %s>%s</text>\n",
		p.x-44, p.y+p.h/2, svgPlain, html.EscapeString(p.yTitle))
}

// svgPercent prints a fraction.
func svgPercent(v float64) string {
	return strconv.FormatFloat(math.Round(v*1e6)/1e4, 'g', -1, 64) + " %"
}
