// Package chart draws lines over two logarithmic axes as SVG, which is all that
// zoidfs needs to show how something grows. The same chart gives the same bytes.
package chart

import (
	"fmt"
	"html"
	"io"
	"math"
	"strings"
)

// Chart is lines over logarithmic axes. Points that are not positive are left
// out.
type Chart struct {
	Title, X, Y string
	Lines       []Line
}

// Line is one of the lines of a chart, with as many X as Y.
type Line struct {
	Name string
	X, Y []float64
}

const (
	width, height           = 640, 400
	left, right, top, below = 80, 150, 40, 50
)

// colors are those of Okabe and Ito, which most people can tell apart.
var colors = [...]string{"#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000"}

// scale maps values to places along an axis.
type scale struct {
	low, high float64 // powers of ten
	from, to  float64
}

func (s scale) at(v float64) float64 {
	return s.from + (math.Log10(v)-s.low)/(s.high-s.low)*(s.to-s.from)
}

// fit is the scale of all values of the lines, from a power of ten to another.
func fit(lines []Line, values func(Line) []float64, from, to float64) scale {
	low, high := math.Inf(1), math.Inf(-1)
	for _, l := range lines {
		for _, v := range values(l) {
			if v > 0 {
				low, high = min(low, math.Log10(v)), max(high, math.Log10(v))
			}
		}
	}
	if low > high {
		low, high = 0, 1
	}
	low, high = math.Floor(low+1e-9), math.Ceil(high-1e-9)
	if low == high {
		high++
	}
	return scale{low, high, from, to}
}

// WriteSVG draws the chart.
func (c Chart) WriteSVG(w io.Writer) error {
	x := fit(c.Lines, func(l Line) []float64 { return l.X }, left, width-right)
	y := fit(c.Lines, func(l Line) []float64 { return l.Y }, height-below, top)
	var b strings.Builder
	fmt.Fprintf(&b, `<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 %d %d" font-family="sans-serif" font-size="12">`+"\n", width, height)
	fmt.Fprintf(&b, `<rect width="%d" height="%d" fill="white"/>`+"\n", width, height)
	text(&b, float64(left+width-right)/2, top-20, "middle", c.Title)
	text(&b, float64(left+width-right)/2, height-10, "middle", c.X)
	fmt.Fprintf(&b, `<g transform="rotate(-90 15 %d)">`, (top+height-below)/2)
	text(&b, 15, float64(top+height-below)/2, "middle", c.Y)
	b.WriteString("</g>\n")
	grid(&b, x, y)
	for i, l := range c.Lines {
		l.draw(&b, x, y, i)
	}
	b.WriteString("</svg>\n")
	_, err := io.WriteString(w, b.String())
	return err
}

// grid draws a line for each power of ten.
func grid(b *strings.Builder, x, y scale) {
	for p := x.low; p <= x.high; p++ {
		at := x.at(math.Pow(10, p))
		fmt.Fprintf(b, `<path d="M%.1f %d V%d" stroke="#ddd"/>`+"\n", at, top, height-below)
		text(b, at, height-below+16, "middle", number(p))
	}
	for p := y.low; p <= y.high; p++ {
		at := y.at(math.Pow(10, p))
		fmt.Fprintf(b, `<path d="M%d %.1f H%d" stroke="#ddd"/>`+"\n", left, at, width-right)
		text(b, left-6, at+4, "end", number(p))
	}
}

// number writes a power of ten.
func number(p float64) string {
	if p >= 0 && p <= 4 {
		return fmt.Sprintf("%.0f", math.Pow(10, p))
	}
	return fmt.Sprintf("1e%.0f", p)
}

func (l Line) draw(b *strings.Builder, x, y scale, i int) {
	color, dash := colors[i%len(colors)], ""
	if i >= len(colors) {
		dash = ` stroke-dasharray="4 3"`
	}
	var path strings.Builder
	for k, v := range l.X {
		if v <= 0 || l.Y[k] <= 0 {
			continue
		}
		px, py := x.at(v), y.at(l.Y[k])
		step := " L"
		if path.Len() == 0 {
			step = "M"
		}
		fmt.Fprintf(&path, "%s%.1f %.1f", step, px, py)
		fmt.Fprintf(b, `<circle cx="%.1f" cy="%.1f" r="3" fill="%s"/>`+"\n", px, py, color)
	}
	if path.Len() > 0 {
		fmt.Fprintf(b, `<path d="%s" fill="none" stroke="%s" stroke-width="2"%s/>`+"\n", path.String(), color, dash)
	}
	at := float64(top + 10 + 18*i)
	fmt.Fprintf(b, `<path d="M%d %.1f h16" stroke="%s" stroke-width="2"%s/>`+"\n", width-right+10, at-4, color, dash)
	text(b, width-right+30, at, "start", l.Name)
}

func text(b *strings.Builder, x, y float64, anchor, s string) {
	fmt.Fprintf(b, `<text x="%.1f" y="%.1f" text-anchor="%s">%s</text>`+"\n", x, y, anchor, html.EscapeString(s))
}
