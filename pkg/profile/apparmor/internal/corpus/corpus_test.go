package corpus

import "testing"

// TestEveryEscapeIsShownOrSaysWhyNot: who adds an escape has to decide.
func TestEveryEscapeIsShownOrSaysWhyNot(t *testing.T) {
	left := DemoNames()
	for _, e := range Escapes() {
		d, known := DemoOf(e)
		if !known || (d.Do == "") == (d.Unshown == "") {
			t.Errorf("%s: it is neither shown nor says why not, or both: %+v", e.Name, d)
		}
		delete(left, e.Name)
	}
	for name := range left {
		t.Errorf("%s: no such escape", name)
	}
}
