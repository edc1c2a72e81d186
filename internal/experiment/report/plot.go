package report

import (
	"math"
	"slices"
)

// plot is a picture.
type plot interface {
	name() string // in words, for those who cannot see it
	size() (w, h float64)
	draw(c canvas)
}

// value is an estimate as it is drawn: a mark, and a line over its interval.
type value struct {
	at        float64
	low, high float64
	hint      string
}

// ok reports whether there is a value.
func (v value) ok() bool { return !math.IsNaN(v.at) && !math.IsInf(v.at, 0) }

// series is what has one colour.
type series struct {
	name string
	style
}

// Measures of plots.
const (
	plotWidth  = 460
	plotHeight = 290
	margin     = 12
	lineHeight = 17
	markSize   = 4.2
)

// heading draws the title of a plot and, below it, the legend, and returns
// where the rest begins.
func heading(c canvas, title, unit string, all []series) (y float64) {
	y = margin + sizeTitle
	c.text(point{margin, y}, fromHere, font{sizeTitle, true, inkText}, title)
	y += lineHeight
	c.text(point{margin, y}, fromHere, font{sizeSmall, false, inkFaint}, unit)
	if len(all) < 2 {
		return y + 8
	}
	y += lineHeight + 2
	x := float64(margin)
	f := font{sizeText, false, inkText}
	for _, s := range all {
		w := 34 + 1.12*width(f, s.name) + 14 // fonts of browsers may be wider
		if x+w > plotWidth && x > margin {
			x, y = margin, y+lineHeight
		}
		c.line([]point{{x, y - 4}, {x + 26, y - 4}}, s.ink, 1.8, s.dash())
		s.mark(c, point{x + 13, y - 4}, markSize, "")
		c.text(point{x + 32, y}, fromHere, f, s.name)
		x += w
	}
	return y + 10
}

// whisker draws an interval, lying or standing.
func whisker(c canvas, s style, a, b point) {
	c.line([]point{a, b}, s.ink, 1.6, nil)
	const half = 3
	for _, p := range []point{a, b} {
		if a.x == b.x {
			c.line([]point{{p.x - half, p.y}, {p.x + half, p.y}}, s.ink, 1.6, nil)
		} else {
			c.line([]point{{p.x, p.y - half}, {p.x, p.y + half}}, s.ink, 1.6, nil)
		}
	}
}

// lines has values of several series over steps, such as transfer sizes.
type lines struct {
	title, unit string
	xLabel      string
	steps       []string
	series      []series
	values      [][]value // by series and step
	format      func(float64) string
	log         bool // always; otherwise if the values ask for it
}

func (p *lines) name() string         { return p.title + ", " + p.unit + " over " + p.xLabel }
func (p *lines) size() (w, h float64) { return plotWidth, plotHeight }

// scale fits all values.
func (p *lines) scale() scale {
	low, high := math.Inf(1), 0.0
	for _, s := range p.values {
		for _, v := range s {
			if v.ok() && v.at > 0 {
				low, high = min(low, max(v.low, v.at/10)), max(high, v.high)
			}
		}
	}
	if low > 0 && (p.log || high/low > 25) && high > 0 {
		return logarithmic(low, high)
	}
	return linear(high)
}

func (p *lines) draw(c canvas) {
	top := heading(c, p.title, p.unit, p.series)
	y := p.scale()
	y.from, y.to = plotHeight-margin-2*lineHeight, top+6
	left := p.yAxis(c, y)
	step := (plotWidth - margin - left) / float64(len(p.steps))
	for i, name := range p.steps {
		c.text(point{left + (float64(i)+0.5)*step, y.from + lineHeight}, around, font{sizeText, false, inkText}, name)
	}
	c.text(point{(left + plotWidth - margin) / 2, y.from + 2*lineHeight - 1}, around, font{sizeSmall, false, inkFaint}, p.xLabel)
	dodge := min(7, step*0.6/float64(max(1, len(p.series))))
	place := func(s, i int, v float64) point {
		return point{left + (float64(i)+0.5)*step + (float64(s)-float64(len(p.series)-1)/2)*dodge, y.at(v)}
	}
	for s := range p.series {
		var through []point
		for i, v := range p.values[s] {
			if v.ok() {
				through = append(through, place(s, i, v.at))
			}
		}
		c.line(through, p.series[s].ink, 1.8, p.series[s].dash())
	}
	for s := range p.series {
		for i, v := range p.values[s] {
			if !v.ok() {
				continue
			}
			if v.low < v.high {
				whisker(c, p.series[s].style, place(s, i, v.low), place(s, i, v.high))
			}
			p.series[s].mark(c, place(s, i, v.at), markSize, v.hint)
		}
	}
}

// yAxis draws the values that a height stands for and returns where the plot
// begins.
func (p *lines) yAxis(c canvas, y scale) (left float64) {
	f := font{sizeText, false, inkFaint}
	ticks := y.ticks(5)
	for _, t := range ticks {
		left = max(left, width(f, p.format(t)))
	}
	left += margin + 8
	for _, t := range ticks {
		c.line([]point{{left, y.at(t)}, {plotWidth - margin, y.at(t)}}, inkGrid, 1, nil)
		c.text(point{left - 6, y.at(t) + 4}, upToHere, f, p.format(t))
	}
	return left
}

// rows has values of several series below each other, in groups.
type rows struct {
	title, unit string
	groups      []string // names, "" for none
	series      []series
	values      [][]value   // by group and series
	tails       [][]float64 // by group and series: how far a thin line goes on; nil: none
	format      func(float64) string
	log         bool
	reference   float64 // a line to compare with; 0: none
}

const rowHeight = 17

func (p *rows) name() string { return p.title + ", " + p.unit }

// shown are the series of a group that have a value.
func (p *rows) shown(g int) (out []int) {
	for s := range p.series {
		if p.values[g][s].ok() {
			out = append(out, s)
		}
	}
	return out
}

func (p *rows) size() (w, h float64) {
	h = margin + sizeTitle + lineHeight + 12 + lineHeight + margin
	for g := range p.groups {
		h += float64(len(p.shown(g)))*rowHeight + 8
	}
	return plotWidth, h
}

// scale fits all values, tails and the reference.
func (p *rows) scale() scale {
	low, high := math.Inf(1), 0.0
	add := func(a, b float64) { low, high = min(low, a), max(high, b) }
	if p.reference > 0 {
		add(p.reference/1.3, p.reference*1.3)
	}
	for g := range p.groups {
		for _, s := range p.shown(g) {
			v := p.values[g][s]
			if v.at > 0 {
				add(max(min(v.low, v.at), v.at/50), max(v.high, v.at))
			}
			if p.tails != nil {
				high = max(high, p.tails[g][s])
			}
		}
	}
	if p.log {
		return logarithmic(low, high)
	}
	return linear(high)
}

func (p *rows) draw(c canvas) {
	top := heading(c, p.title, p.unit, nil)
	_, h := p.size()
	bottom := h - margin - lineHeight
	f := font{sizeText, false, inkText}
	names, left := 0.0, 0.0
	for g, group := range p.groups {
		names = max(names, width(f, group))
		for _, s := range p.shown(g) {
			left = max(left, width(f, p.series[s].name))
		}
	}
	if names > 0 {
		names += 12
	}
	left += margin + names + 10
	x := p.scale()
	x.from, x.to = left, plotWidth-margin-14
	xLabels(c, x, top, bottom, p.format)
	if p.reference > 0 {
		c.line([]point{{x.at(p.reference), top}, {x.at(p.reference), bottom}}, inkText, 1.4, nil)
	}
	y := top + 4
	for g, group := range p.groups {
		shown := p.shown(g)
		for k, s := range shown {
			mid := y + rowHeight/2
			if k == 0 && group != "" {
				c.text(point{margin, mid + 4}, fromHere, f, group)
			}
			c.text(point{left - 8, mid + 4}, upToHere, f, p.series[s].name)
			p.row(c, x, mid, g, s)
			y += rowHeight
		}
		y += 8
		if g+1 < len(p.groups) && len(shown) > 0 {
			c.line([]point{{margin, y - 4}, {plotWidth - margin, y - 4}}, inkGrid, 1, nil)
		}
	}
}

// xLabels draws the values that a place along an axis stands for, each that has
// room beside the one before.
func xLabels(c canvas, x scale, top, bottom float64, format func(float64) string) {
	f := font{sizeText, false, inkFaint}
	end := math.Inf(-1)
	for _, t := range x.ticks(5) {
		c.line([]point{{x.at(t), top}, {x.at(t), bottom}}, inkGrid, 1, nil)
		half := width(f, format(t))/2 + 4
		if x.at(t)-half > end {
			c.text(point{x.at(t), bottom + lineHeight - 2}, around, f, format(t))
			end = x.at(t) + half
		}
	}
}

// row draws one value.
func (p *rows) row(c canvas, x scale, y float64, g, s int) {
	v, st := p.values[g][s], p.series[s].style
	if p.tails != nil && p.tails[g][s] > v.at {
		end := x.at(p.tails[g][s])
		c.line([]point{{x.at(v.at), y}, {end, y}}, st.ink, 1, []float64{2, 2})
		c.line([]point{{end, y - 4}, {end, y + 4}}, st.ink, 1.6, nil)
	}
	if v.low < v.high {
		whisker(c, st, point{x.at(v.low), y}, point{x.at(v.high), y})
	}
	st.mark(c, point{x.at(v.at), y}, markSize, v.hint)
}

// shares draws for each series which share of its values is at most so large.
type shares struct {
	title, unit string
	series      []series
	sorted      [][]float64 // by series
	floor       float64     // smaller values are drawn as this
	format      func(float64) string
}

func (p *shares) name() string         { return p.title + ", " + p.unit }
func (p *shares) size() (w, h float64) { return plotWidth, plotHeight }

func (p *shares) draw(c canvas) {
	top := heading(c, p.title, p.unit, p.series)
	high := p.floor * 10
	for _, v := range p.sorted {
		if len(v) > 0 {
			high = max(high, v[len(v)-1])
		}
	}
	bottom := float64(plotHeight - margin - lineHeight)
	left := float64(margin + 42)
	x := scale{low: p.floor, high: high * 1.15, log: true, from: left, to: plotWidth - margin - 10}
	y := scale{low: 0, high: 1, from: bottom, to: top + 6}
	f := font{sizeText, false, inkFaint}
	for _, t := range []float64{0, 0.25, 0.5, 0.75, 1} {
		c.line([]point{{left, y.at(t)}, {x.to, y.at(t)}}, inkGrid, 1, nil)
		c.text(point{left - 6, y.at(t) + 4}, upToHere, f, digits(100*t)+" %")
	}
	xLabels(c, x, y.to, bottom, p.format)
	for s, values := range p.sorted {
		p.curve(c, x, y, s, values)
	}
}

// curve draws the steps of one series, with a mark at the quartiles.
func (p *shares) curve(c canvas, x, y scale, s int, values []float64) {
	if len(values) == 0 {
		return
	}
	at := func(v float64) float64 { return x.at(max(v, p.floor)) }
	points := []point{{at(values[0]), y.from}}
	for i, v := range values {
		if i+1 < len(values) && values[i+1] == v {
			continue
		}
		points = append(points, point{at(v), points[len(points)-1].y}, point{at(v), y.at(float64(i+1) / float64(len(values)))})
	}
	points = append(points, point{x.to, y.to})
	c.line(slices.Clip(points), p.series[s].ink, 1.8, p.series[s].dash())
	for _, q := range []float64{0.25, 0.5, 0.75} {
		v := values[min(len(values)-1, int(q*float64(len(values))))]
		p.series[s].mark(c, point{at(v), y.at(q)}, markSize, p.series[s].name+": "+digits(100*q)+" % within "+p.format(v))
	}
}
