package main

import (
	"fmt"
	"html"
	"strings"
)

// An svg is a drawing that is being made. Coordinates are in pixels from the upper left corner.
type svg struct {
	w, h float64
	b    strings.Builder
}

// These are the colours of texts and of the lines behind the data.
const (
	inkColour  = "#24292f"
	gridColour = "#d8dee4"
)

func (s *svg) rect(x, y, w, h float64, colour string) {
	fmt.Fprintf(&s.b, "<rect x=\"%.1f\" y=\"%.1f\" width=\"%.1f\" height=\"%.1f\" fill=\"%s\"/>\n", x, y, w, h, colour)
}

func (s *svg) line(x1, y1, x2, y2 float64, colour string, width float64) {
	fmt.Fprintf(&s.b, "<line x1=\"%.1f\" y1=\"%.1f\" x2=\"%.1f\" y2=\"%.1f\" stroke=\"%s\" stroke-width=\"%.1f\"/>\n",
		x1, y1, x2, y2, colour, width)
}

// path draws a line through points, with a dot at each.
func (s *svg) path(points [][2]float64, colour string) {
	var p []string
	for _, q := range points {
		p = append(p, fmt.Sprintf("%.1f,%.1f", q[0], q[1]))
	}
	fmt.Fprintf(&s.b, "<polyline points=\"%s\" fill=\"none\" stroke=\"%s\" stroke-width=\"2\"/>\n",
		strings.Join(p, " "), colour)
	for _, q := range points {
		fmt.Fprintf(&s.b, "<circle cx=\"%.1f\" cy=\"%.1f\" r=\"3\" fill=\"%s\"/>\n", q[0], q[1], colour)
	}
}

// text draws a text; anchor is start, middle or end.
func (s *svg) text(x, y float64, anchor, weight, t string) {
	fmt.Fprintf(&s.b, "<text x=\"%.1f\" y=\"%.1f\" text-anchor=\"%s\" font-weight=\"%s\">%s</text>\n",
		x, y, anchor, weight, html.EscapeString(t))
}

// String returns the drawing as a file.
func (s *svg) String() string {
	return fmt.Sprintf("<svg xmlns=\"http://www.w3.org/2000/svg\" width=\"%.0f\" height=\"%.0f\" "+
		"viewBox=\"0 0 %.0f %.0f\" font-family=\"sans-serif\" font-size=\"12\" fill=\"%s\">\n"+
		"<rect width=\"100%%\" height=\"100%%\" fill=\"#ffffff\"/>\n%s</svg>\n",
		s.w, s.h, s.w, s.h, inkColour, s.b.String())
}
