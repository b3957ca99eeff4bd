package main

import (
	"context"
	"slices"
)

// scenario is one thing that is measured.
type scenario struct {
	name  string
	about string // what is measured and how, for the reader of the table
	size  size   // events of the stock that it uses
	run   func(context.Context, *bench) (result, error)
}

// size is a number for a full run and one for -quick.
type size struct{ full, quick int }

// result is what a scenario found.
type result struct {
	rows  []row
	notes []string // under the table
	plots []chart
}

// row is one figure, with a value for each round, and what it is held against.
type row struct {
	figure string
	unit   string
	values []float64
	limit  limit
	target target

	headline string // what it is in the README's short list; empty: it does not stand there
}

// limit is the best that could be, measured in the same rounds; the zero value says that there is nothing to compare with.
type limit struct {
	what   string
	unit   string // empty: the figure's
	values []float64
}

// target is what the median of a figure or of its ratio must be, or a figure in each round; the zero value asks for nothing.
type target struct {
	kind  targetKind
	bound float64
}

type targetKind int

const (
	noTarget targetKind = iota
	figureAtMost
	everAtMost // the highest of all rounds
	figureAtLeast
	ratioAtMost
	ratioAtLeast
)

func atMost(x float64) target     { return target{figureAtMost, x} }
func never(x float64) target      { return target{everAtMost, x} } // above x
func atLeast(x float64) target    { return target{figureAtLeast, x} }
func ratioMost(x float64) target  { return target{ratioAtMost, x} }
func ratioLeast(x float64) target { return target{ratioAtLeast, x} }
func (r row) median() float64     { return spreadOf(r.values).median }
func (r row) hasRatio() bool      { return len(r.limit.values) == len(r.values) && len(r.values) > 0 }

// ratio is the median of the rounds' figure ÷ limit.
func (r row) ratio() float64 {
	if !r.hasRatio() {
		return 0
	}
	list := make([]float64, len(r.values))
	for i := range list {
		list[i] = r.values[i] / r.limit.values[i]
	}
	return spreadOf(list).median
}

// met says whether the target is reached; asked is false where there is none.
func (r row) met() (met, asked bool) {
	switch t := r.target; t.kind {
	case figureAtMost:
		return r.median() <= t.bound, true
	case everAtMost:
		return spreadOf(r.values).max <= t.bound, true
	case figureAtLeast:
		return r.median() >= t.bound, true
	case ratioAtMost:
		return r.hasRatio() && r.ratio() <= t.bound, true
	case ratioAtLeast:
		return r.hasRatio() && r.ratio() >= t.bound, true
	}
	return false, false
}

// spread is how far the rounds lie apart.
type spread struct{ min, median, max float64 }

func spreadOf(values []float64) spread {
	if len(values) == 0 {
		return spread{}
	}
	s := slices.Sorted(slices.Values(values))
	n := len(s)
	return spread{s[0], (s[(n-1)/2] + s[n/2]) / 2, s[n-1]}
}

// percentile p (0 to 1) of a list, which it sorts; nearest rank.
func percentile(list []float64, p float64) float64 {
	if len(list) == 0 {
		return 0
	}
	slices.Sort(list)
	return list[min(len(list)-1, int(p*float64(len(list))))]
}
