package main

import (
	"bytes"
	"image/color"
	"math"
	"os"
	"slices"

	"gonum.org/v1/plot"
	"gonum.org/v1/plot/font"
	"gonum.org/v1/plot/plotter"
	"gonum.org/v1/plot/vg"
	"gonum.org/v1/plot/vg/draw"
	"gonum.org/v1/plot/vg/vgsvg"
)

// chart is a plot in a file of its own: panels side by side over the same x axis, which is logarithmic.
type chart struct {
	file   string // with .svg
	title  string // for who does not see it
	x      string // what it counts
	panels []panel
}

// panel is one y axis.
type panel struct {
	title string
	y     string // with its unit
	lines []line
}

// line is how something grows.
type line struct {
	name   string
	dashed bool // a limit, a target
	points []point
}

// point has one value for each round, or one only.
type point struct {
	x      float64
	values []float64
}

// newLine has room for a point at each size.
func newLine(name string, sizes []int) line {
	return line{name: name, points: make([]point, len(sizes))}
}

// boundAt is a dashed line at y.
func boundAt(name string, y float64, sizes []int) line {
	l := newLine(name, sizes)
	l.dashed = true
	for i, x := range sizes {
		l.add(i, x, y)
	}
	return l
}

// add puts one round's value to point i.
func (l *line) add(i int, x int, value float64) {
	l.points[i].x = float64(x)
	l.points[i].values = append(l.points[i].values, value)
}

// colours that people tell apart, also who see few colours (Okabe and Ito).
var colours = []color.RGBA{{0, 114, 178, 255}, {213, 94, 0, 255}, {0, 158, 115, 255}, {204, 121, 167, 255}}

const panelWidth, chartHeight = 11 * vg.Centimeter, 8.5 * vg.Centimeter

// write draws the chart as SVG: text as text, in fonts that are looked for on the reader's machine.
func (c chart) write(file string) error {
	width := vg.Length(len(c.panels)) * panelWidth
	canvas := vgsvg.NewWith(vgsvg.UseWH(width, chartHeight), vgsvg.EmbedFonts(false))
	dc := draw.New(canvas)
	dc.SetColor(color.White)
	dc.Fill(dc.Rectangle.Path())
	tiles := draw.Tiles{Rows: 1, Cols: len(c.panels), PadX: 6 * vg.Millimeter, PadTop: 2 * vg.Millimeter, PadBottom: 2 * vg.Millimeter,
		PadLeft: 3 * vg.Millimeter, PadRight: 5 * vg.Millimeter}
	row := make([]*plot.Plot, len(c.panels))
	for i, p := range c.panels {
		var err error
		if row[i], err = c.panel(p); err != nil {
			return err
		}
	}
	for i, at := range plot.Align([][]*plot.Plot{row}, tiles, dc)[0] {
		row[i].Draw(at)
	}
	var b bytes.Buffer
	if _, err := canvas.WriteTo(&b); err != nil {
		return err
	}
	text := bytes.ReplaceAll(b.Bytes(), []byte("font-family:Liberation Sans"), []byte("font-family:Liberation Sans,Arial,Helvetica,sans-serif"))
	return os.WriteFile(file, text, 0o644)
}

func (c chart) panel(p panel) (*plot.Plot, error) {
	out := plot.New()
	sans := font.Font{Typeface: "Liberation", Variant: "Sans", Size: 9}
	for _, style := range []*draw.TextStyle{&out.X.Label.TextStyle, &out.Y.Label.TextStyle, &out.X.Tick.Label, &out.Y.Tick.Label, &out.Legend.TextStyle, &out.Title.TextStyle} {
		style.Font = sans
	}
	out.Title.Text, out.Title.TextStyle.Font.Size, out.Title.Padding = p.title, 10, 2*vg.Millimeter
	out.X.Label.Text, out.Y.Label.Text = c.x, p.y
	out.X.Scale, out.X.Tick.Marker = plot.LogScale{}, ticks(p)
	grid := plotter.NewGrid()
	grid.Vertical.Color, grid.Horizontal.Color = color.Gray{225}, color.Gray{225}
	out.Add(grid)
	out.Legend.Top, out.Legend.Left = true, true
	out.Legend.Padding, out.Legend.XOffs, out.Legend.YOffs = 2, 2*vg.Millimeter, -vg.Millimeter
	highest := 0.0
	for i, l := range p.lines {
		xys := make(plotter.XYs, len(l.points))
		bars := make(plotter.YErrors, len(l.points))
		for j, pt := range l.points {
			s := spreadOf(pt.values)
			xys[j] = plotter.XY{X: pt.x, Y: s.median}
			bars[j].Low, bars[j].High = s.median-s.min, s.max-s.median
			highest = math.Max(highest, s.max)
		}
		drawn, dots, err := plotter.NewLinePoints(xys)
		if err != nil {
			return nil, err
		}
		drawn.Width, drawn.Color = 1.2, colours[i%len(colours)]
		dots.Shape, dots.Color, dots.Radius = draw.CircleGlyph{}, drawn.Color, 2
		if l.dashed {
			drawn.Dashes = []vg.Length{4, 3}
			out.Add(drawn)
			out.Legend.Add(l.name, drawn)
			continue
		}
		spreads, err := plotter.NewYErrorBars(struct {
			plotter.XYer
			plotter.YErrorer
		}{xys, bars})
		if err != nil {
			return nil, err
		}
		spreads.Color = drawn.Color
		out.Add(drawn, dots, spreads)
		out.Legend.Add(l.name, drawn, dots)
	}
	out.Y.Min, out.Y.Max = 0, math.Max(highest, 1e-9)*(1.1+0.11*float64(len(p.lines))) // room for the legend
	out.Y.Tick.Marker = plot.TickerFunc(evenly)
	return out, nil
}

// ticks stand where something was measured.
func ticks(p panel) plot.Ticker {
	var list []plot.Tick
	for _, l := range p.lines {
		for _, pt := range l.points {
			t := plot.Tick{Value: pt.x, Label: short(pt.x)}
			if !slices.Contains(list, t) {
				list = append(list, t)
			}
		}
	}
	return plot.ConstantTicks(list)
}

// evenly sets ticks at whole multiples of 1, 2 or 5.
func evenly(low, high float64) (list []plot.Tick) {
	step := math.Pow(10, math.Floor(math.Log10((high-low)/4)))
	for _, f := range []float64{1, 2, 5, 10} {
		if (high-low)/(step*f) <= 6 {
			step *= f
			break
		}
	}
	for i := 0.0; i*step <= high; i++ {
		list = append(list, plot.Tick{Value: i * step, Label: number(i * step)})
	}
	return list
}

// short writes 10000 as 10 k.
func short(x float64) string {
	switch {
	case x >= 1e6:
		return number(x/1e6) + " M"
	case x >= 1e4:
		return number(x/1e3) + " k"
	}
	return number(x)
}
