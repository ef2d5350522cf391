package policydb

import "testing"

func FuzzRead(f *testing.F) {
	f.Add([]byte("\x8c\xff\x7c\xf9\x08\x00\x00\x00SE Linux\x1f\x00\x00\x00"))
	f.Fuzz(func(t *testing.T, data []byte) {
		p, err := Read(data)
		if n := len(p.Types) + len(p.Attributes) + len(p.Aliases); n > len(data) {
			t.Errorf("%d names of %d bytes: %v", n, len(data), err)
		}
	})
}
