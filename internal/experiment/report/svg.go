package report

import (
	"fmt"
	"html"
	"strconv"
	"strings"
)

// svgCanvas draws SVG. Its colours are written out, or are variables of a page.
type svgCanvas struct {
	b     strings.Builder
	color func(ink) string
}

// literal are colours as they are.
func literal(i ink) string { return light[i] }

// variable are the colours of a page, see pageCSS.
func variable(i ink) string {
	if i == noInk {
		return "none"
	}
	return fmt.Sprintf("var(--i%d)", int(i))
}

// num writes a coordinate with as many digits as can be seen.
func num(v float64) string { return strconv.FormatFloat(round(v, 10), 'f', -1, 64) }

func round(v, parts float64) float64 {
	if v < 0 {
		return -float64(int(-v*parts+0.5)) / parts
	}
	return float64(int(v*parts+0.5)) / parts
}

func path(points []point) string {
	var b strings.Builder
	for i, p := range points {
		if i > 0 {
			b.WriteByte(' ')
		}
		b.WriteString(num(p.x) + "," + num(p.y))
	}
	return b.String()
}

func (c *svgCanvas) line(points []point, i ink, width float64, dash []float64) {
	fmt.Fprintf(&c.b, `<polyline points="%s" style="fill:none;stroke:%s;stroke-width:%s`, path(points), c.color(i), num(width))
	if len(dash) > 0 {
		var d []string
		for _, v := range dash {
			d = append(d, num(v))
		}
		fmt.Fprintf(&c.b, ";stroke-dasharray:%s", strings.Join(d, ","))
	}
	c.b.WriteString("\"/>\n")
}

func (c *svgCanvas) shape(points []point, fill, stroke ink, width float64, hint string) {
	fmt.Fprintf(&c.b, `<polygon points="%s" style="fill:%s;stroke:%s;stroke-width:%s">`, path(points), c.color(fill), c.color(stroke), num(width))
	if hint != "" {
		fmt.Fprintf(&c.b, "<title>%s</title>", html.EscapeString(hint))
	}
	c.b.WriteString("</polygon>\n")
}

func (c *svgCanvas) text(at point, a anchor, f font, s string) {
	weight := ""
	if f.bold {
		weight = ";font-weight:600"
	}
	fmt.Fprintf(&c.b, `<text x="%s" y="%s" text-anchor="%s" style="font-size:%spx;fill:%s%s">%s</text>`+"\n",
		num(at.x), num(at.y), []string{"start", "middle", "end"}[a], num(f.size), c.color(f.ink), weight, html.EscapeString(s))
}

// svg draws a plot as an SVG element.
func svg(p plot, color func(ink) string) string {
	c := &svgCanvas{color: color}
	w, h := p.size()
	c.shape([]point{{0, 0}, {w, 0}, {w, h}, {0, h}}, inkGround, noInk, 0, "")
	p.draw(c)
	return fmt.Sprintf(`<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 %s %s" width="%s" height="%s" role="img" aria-label="%s" `+
		`font-family="system-ui, 'Segoe UI', Roboto, 'DejaVu Sans', Arial, sans-serif">`+"\n%s</svg>\n",
		num(w), num(h), num(w), num(h), html.EscapeString(p.name()), c.b.String())
}
