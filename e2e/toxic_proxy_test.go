package e2e

import (
	"context"
	"encoding/json"
	"strings"
	"testing"

	"github.com/Shopify/toxiproxy/v2"
	"github.com/rs/zerolog"

	"rebroadcastr/e2e/localrelay"
)

// toxicProxy stands between the daemon and a relay and harms what passes: a proxy of toxiproxy's, in this process.
type toxicProxy struct {
	*toxiproxy.Proxy
	t testing.TB
}

// toxic is one of toxiproxy's: latency, bandwidth, slow_close, timeout, reset_peer, slicer, limit_data. Its attributes have
// toxiproxy's own units.
type toxic struct {
	kind       string
	downstream bool // on what comes from the relay, else on what goes to it
	attributes map[string]int
}

// down harms what comes from the relay, up what goes to it; attributes are pairs of name and value.
func down(kind string, attributes ...any) toxic { return toxic{kind, true, pairs(attributes)} }

func up(kind string, attributes ...any) toxic { return toxic{kind, false, pairs(attributes)} }

func pairs(list []any) map[string]int {
	m := map[string]int{}
	for i := 0; i+1 < len(list); i += 2 {
		m[list[i].(string)] = list[i+1].(int)
	}
	return m
}

// proxied puts a proxy before a relay, given by host and port.
func proxied(t testing.TB, upstream string) *toxicProxy {
	t.Helper()
	server := toxiproxy.NewServer(toxiproxy.NewMetricsContainer(nil), zerolog.Nop())
	p := &toxicProxy{toxiproxy.NewProxy(server, t.Name(), "127.0.0.1:0", upstream), t}
	p.back()
	t.Cleanup(p.Stop)
	return p
}

// url is where the daemon finds the relay behind the proxy; the same for the proxy's whole life.
func (p *toxicProxy) url() string { return "ws://" + p.Listen }

// add puts toxics in the way of all connections, also of those that stand.
func (p *toxicProxy) add(toxics ...toxic) {
	p.t.Helper()
	for _, x := range toxics {
		way := "upstream"
		if x.downstream {
			way = "downstream"
		}
		text, err := json.Marshal(map[string]any{"type": x.kind, "stream": way, "attributes": x.attributes})
		if err != nil {
			p.t.Fatal(err)
		}
		if _, err := p.Toxics.AddToxicJson(strings.NewReader(string(text))); err != nil {
			p.t.Fatalf("add toxic %s: %v", text, err)
		}
	}
}

// heal takes all toxics away. A connection whose bytes a timeout toxic has swallowed is closed by that.
func (p *toxicProxy) heal() { p.Toxics.ResetToxics(context.Background()) }

// back listens (again), where it listened before it was stopped.
func (p *toxicProxy) back() {
	p.t.Helper()
	if err := p.Start(); err != nil {
		p.t.Fatalf("start a proxy before %s: %v", p.Upstream, err)
	}
}

// throughProxy is a local relay and a proxy before it.
func throughProxy(t testing.TB, o localrelay.Options) (*localrelay.Relay, *toxicProxy) {
	t.Helper()
	r := relay(t, o)
	return r, proxied(t, r.Addr())
}
