package main

import (
	"fmt"
	"html"
	"strconv"
	"strings"
)

// An svg is a drawing that is being made. Coordinates are in pixels from the upper left corner.
type svg struct {
	b     strings.Builder
	clips int
}

// px formats a coordinate to a tenth of a pixel.
func px(v float64) string {
	return strings.TrimSuffix(strconv.FormatFloat(v, 'f', 1, 64), ".0")
}

func (s *svg) rect(x, y, w, h float64, attrs string) {
	fmt.Fprintf(&s.b, "<rect x=\"%s\" y=\"%s\" width=\"%s\" height=\"%s\" %s/>\n", px(x), px(y), px(w), px(h), attrs)
}

func (s *svg) line(x1, y1, x2, y2 float64, colour string, width float64, attrs string) {
	fmt.Fprintf(&s.b, "<line x1=\"%s\" y1=\"%s\" x2=\"%s\" y2=\"%s\" stroke=\"%s\" stroke-width=\"%s\" %s/>\n",
		px(x1), px(y1), px(x2), px(y2), colour, px(width), attrs)
}

// path draws the lines that d describes. If d is empty, it draws nothing.
func (s *svg) path(d, colour string, width float64, attrs string) {
	if d != "" {
		fmt.Fprintf(&s.b, "<path d=\"%s\" fill=\"none\" stroke=\"%s\" stroke-width=\"%s\" %s/>\n", d, colour,
			px(width), attrs)
	}
}

// text draws a text; anchor is start, middle or end.
func (s *svg) text(x, y float64, anchor, attrs, t string) {
	fmt.Fprintf(&s.b, "<text x=\"%s\" y=\"%s\" text-anchor=\"%s\" %s>%s</text>\n", px(x), px(y), anchor, attrs,
		html.EscapeString(t))
}

// clip calls inside, and limits its drawing to a rectangle.
func (s *svg) clip(x, y, w, h float64, inside func()) {
	s.clips++
	fmt.Fprintf(&s.b, "<clipPath id=\"c%d\"><rect x=\"%s\" y=\"%s\" width=\"%s\" height=\"%s\"/></clipPath>\n"+
		"<g clip-path=\"url(#c%d)\">\n",
		s.clips, px(x), px(y), px(w), px(h), s.clips)
	inside()
	s.b.WriteString("</g>\n")
}

// file returns the drawing as a file, on white, whatever the viewer's background is.
func (s *svg) file(w, h float64, title string) string {
	return fmt.Sprintf("<svg xmlns=\"http://www.w3.org/2000/svg\" width=\"%s\" height=\"%s\" "+
		"viewBox=\"0 0 %[1]s %[2]s\" font-family=\"sans-serif\" font-size=\"12\" fill=\"%s\">\n"+
		"<title>%s</title>\n<rect width=\"100%%\" height=\"100%%\" fill=\"#ffffff\"/>\n%s</svg>\n",
		px(w), px(h), ink, html.EscapeString(title), s.b.String())
}
