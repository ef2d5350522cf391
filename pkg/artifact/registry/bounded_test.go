package registry

import (
	"slices"
	"testing"
)

func TestBounded(t *testing.T) {
	var evicted []string
	b := newBounded[string](2, func(v string) { evicted = append(evicted, v) })
	b.put("a", "1")
	b.put("b", "2")
	if v, ok := b.get("a"); !ok || v != "1" {
		t.Errorf("a = %q, %v", v, ok)
	}
	b.put("c", "3") // b was used least recently
	if _, ok := b.get("b"); ok || !slices.Equal(evicted, []string{"2"}) {
		t.Errorf("b is still there, evicted %q", evicted)
	}
	b.put("a", "4")
	if v, _ := b.get("a"); v != "4" {
		t.Errorf("a = %q, want the new value", v)
	}
	if v := b.getOrPut("c", func() string { return "5" }, false); v != "3" {
		t.Errorf("c = %q, want what was there", v)
	}
	b.remove("a")
	if got := b.values(); !slices.Equal(got, []string{"3"}) {
		t.Errorf("values %q, want only 3", got)
	}
}

// What a client remembers must not grow with what it is asked for.
func TestManyRegistries(t *testing.T) {
	c := newTestClient(t)
	for i := range 3 * maxSites {
		c.site(endpoint{scheme: "https", host: string(rune('a'+i%26)) + string(rune('0'+i))})
	}
	if n := len(c.sites.values()); n != maxSites {
		t.Errorf("%d sites are held, want %d", n, maxSites)
	}
}
