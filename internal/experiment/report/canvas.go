package report

import "math"

// point is a place on a canvas, in pixels of a screen; y goes down.
type point struct{ x, y float64 }

// ink is a colour by its purpose.
type ink int

// The inks. Those of series follow series0.
const (
	noInk ink = iota
	inkText
	inkFaint  // less important text
	inkGrid   // lines to read values by
	inkGround // the paper
	series0
)

// anchor says where the text begins that is written at a point.
type anchor int

const (
	fromHere anchor = iota
	around
	upToHere
)

// font is how text is written.
type font struct {
	size float64
	bold bool
	ink  ink
}

// Sizes of text.
const (
	sizeTitle = 14
	sizeText  = 12
	sizeSmall = 11
)

// canvas is what plots are drawn on.
type canvas interface {
	// line draws a line through points; dash has the lengths of strokes and gaps
	// in turn, none for an unbroken line.
	line(points []point, i ink, width float64, dash []float64)
	// shape draws a polygon; hint is shown to those who point at it.
	shape(points []point, fill, stroke ink, width float64, hint string)
	// text writes one line whose base begins, is centred, or ends at a point.
	text(at point, a anchor, f font, s string)
}

// light are the colours of paper, dark those of a dark screen.
var (
	light = []string{"none", "#1a1a1a", "#595959", "#d9d9d9", "#ffffff", "#0072b2", "#d55e00", "#009e73", "#b85c95", "#a87900", "#5b5b5b", "#3aa0d8", "#7a3e00"}
	dark  = []string{"none", "#f0f0f0", "#b0b0b0", "#3d4249", "#16191d", "#5cb8f0", "#ff8f52", "#3fd6a4", "#eaa6cf", "#f0c34e", "#c8c8c8", "#9fd8ff", "#d8a070"}
)

// numSeries is how many series have a colour of their own.
var numSeries = len(light) - int(series0)

// style is how a series is drawn.
type style struct {
	ink    ink
	marker int
	hollow bool
}

// styleOf returns the style of series i; second ones of a colour are hollow.
func styleOf(i int, hollow bool) style {
	return style{series0 + ink(i%numSeries), i, hollow}
}

// dash is the line of a series.
func (s style) dash() []float64 {
	all := [][]float64{nil, {7, 3}, {2, 3}, {9, 3, 2, 3}, {5, 2, 1, 2, 1, 2}}
	return all[s.marker%len(all)]
}

// mark draws the marker of a series around a point.
func (s style) mark(c canvas, at point, r float64, hint string) {
	var p []point
	regular := func(n int, turn, r float64) {
		for k := range n {
			a := turn + 2*math.Pi*float64(k)/float64(n)
			p = append(p, point{at.x + r*math.Sin(a), at.y - r*math.Cos(a)})
		}
	}
	switch s.marker % 5 {
	case 0:
		regular(20, 0, r)
	case 1:
		regular(4, math.Pi/4, r*1.25)
	case 2:
		regular(3, 0, r*1.35)
	case 3:
		regular(4, 0, r*1.3)
	case 4:
		regular(3, math.Pi, r*1.35)
	}
	fill := s.ink
	if s.hollow {
		fill = inkGround
	}
	c.shape(p, fill, s.ink, 1.6, hint)
}
