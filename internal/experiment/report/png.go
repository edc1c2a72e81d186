package report

import (
	"bytes"
	"image"
	"image/color"
	"image/draw"
	"image/png"
	"math"
	"strconv"

	xfont "golang.org/x/image/font"
	"golang.org/x/image/font/gofont/gobold"
	"golang.org/x/image/font/gofont/goregular"
	"golang.org/x/image/font/opentype"
	"golang.org/x/image/math/fixed"
	"golang.org/x/image/vector"
)

// pngScale is how many pixels of a picture are one of the screen: 300 to an inch.
const pngScale = 3.125

// pixels draws into an image.
type pixels struct {
	img   *image.RGBA
	faces map[fontKey]xfont.Face
}

// rgba is an ink on paper.
func rgba(i ink) color.RGBA {
	v, err := strconv.ParseUint(light[i][1:], 16, 32)
	if err != nil {
		panic(err) // the table is ours
	}
	return color.RGBA{uint8(v >> 16), uint8(v >> 8), uint8(v), 255}
}

// fill fills a polygon.
func (c *pixels) fill(points []point, i ink) {
	if i == noInk || len(points) < 3 {
		return
	}
	x0, y0, x1, y1 := math.Inf(1), math.Inf(1), math.Inf(-1), math.Inf(-1)
	for _, p := range points {
		x0, x1 = min(x0, p.x*pngScale), max(x1, p.x*pngScale)
		y0, y1 = min(y0, p.y*pngScale), max(y1, p.y*pngScale)
	}
	box := image.Rect(int(x0)-1, int(y0)-1, int(x1)+2, int(y1)+2).Intersect(c.img.Bounds())
	if box.Empty() {
		return
	}
	r := vector.NewRasterizer(box.Dx(), box.Dy())
	for k, p := range points {
		x, y := float32(p.x*pngScale-float64(box.Min.X)), float32(p.y*pngScale-float64(box.Min.Y))
		if k == 0 {
			r.MoveTo(x, y)
		} else {
			r.LineTo(x, y)
		}
	}
	r.ClosePath()
	r.Draw(c.img, box, image.NewUniform(rgba(i)), image.Point{})
}

// stroke draws one straight piece of a line.
func (c *pixels) stroke(a, b point, i ink, width float64) {
	dx, dy := b.x-a.x, b.y-a.y
	n := math.Hypot(dx, dy)
	if n == 0 {
		return
	}
	ox, oy := -dy/n*width/2, dx/n*width/2
	c.fill([]point{{a.x + ox, a.y + oy}, {b.x + ox, b.y + oy}, {b.x - ox, b.y - oy}, {a.x - ox, a.y - oy}}, i)
}

func (c *pixels) line(points []point, i ink, width float64, dash []float64) {
	if len(dash) == 0 {
		dash = []float64{math.Inf(1)}
	}
	k, left := 0, dash[0]
	for n := 1; n < len(points); n++ {
		a, b := points[n-1], points[n]
		for {
			d := math.Hypot(b.x-a.x, b.y-a.y)
			step := min(d, left)
			to := b
			if step < d {
				to = point{a.x + (b.x-a.x)*step/d, a.y + (b.y-a.y)*step/d}
			}
			if k%2 == 0 {
				c.stroke(a, to, i, width)
			}
			if left -= step; left <= 0 {
				k++
				left = dash[k%len(dash)]
			}
			if a = to; step >= d {
				break
			}
		}
	}
}

func (c *pixels) shape(points []point, fill, stroke ink, width float64, _ string) {
	c.fill(points, fill)
	if stroke != noInk && len(points) > 0 {
		c.line(append(points, points[0]), stroke, width, nil)
	}
}

func (c *pixels) text(at point, a anchor, f font, s string) {
	key := fontKey{f.size * pngScale, f.bold}
	if c.faces[key] == nil {
		c.faces[key] = newFace(key)
	}
	d := xfont.Drawer{Dst: c.img, Src: image.NewUniform(rgba(f.ink)), Face: c.faces[key]}
	w := float64(d.MeasureString(s)) / 64
	x := at.x*pngScale - w*float64(a)/2
	d.Dot = fixed.Point26_6{X: fixed.Int26_6(x * 64), Y: fixed.Int26_6(at.y * pngScale * 64)}
	d.DrawString(s)
}

// fontKey names a face.
type fontKey struct {
	size float64
	bold bool
}

func newFace(k fontKey) xfont.Face {
	ttf := goregular.TTF
	if k.bold {
		ttf = gobold.TTF
	}
	f, err := opentype.Parse(ttf)
	if err != nil {
		panic(err) // it is compiled in
	}
	face, err := opentype.NewFace(f, &opentype.FaceOptions{Size: k.size, DPI: 72})
	if err != nil {
		panic(err)
	}
	return face
}

// widths has faces to measure text by, before it is drawn.
var widths = map[fontKey]xfont.Face{}

// width is about how wide text is on any canvas.
func width(f font, s string) float64 {
	k := fontKey{f.size, f.bold}
	if widths[k] == nil {
		widths[k] = newFace(k)
	}
	return float64(xfont.MeasureString(widths[k], s)) / 64
}

// pngOf draws a plot as a PNG file.
func pngOf(p plot) ([]byte, error) {
	w, h := p.size()
	c := &pixels{img: image.NewRGBA(image.Rect(0, 0, int(w*pngScale), int(h*pngScale))), faces: map[fontKey]xfont.Face{}}
	draw.Draw(c.img, c.img.Bounds(), image.NewUniform(rgba(inkGround)), image.Point{}, draw.Src)
	p.draw(c)
	var b bytes.Buffer
	err := png.Encode(&b, c.img)
	return b.Bytes(), err
}
