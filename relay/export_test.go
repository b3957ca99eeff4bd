package relay

// Pace is how many requests a second go now.
func (l *Link) Pace() float64 {
	l.pace.mu.Lock()
	defer l.pace.mu.Unlock()
	return l.pace.now
}
