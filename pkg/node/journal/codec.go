package journal

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"

	"github.com/opencontainers/go-digest"
)

// formatVersion is raised by every change that an older agent would misread.
const formatVersion = 1

// ErrDamaged says that a journal is not what was written.
var ErrDamaged = errors.New("the journal is damaged")

// envelope is the file. Sum is over the bytes of Slots as they stand: a bit
// that flips in a digest would otherwise still be a digest.
type envelope struct {
	Version int             `json:"version"`
	Sum     digest.Digest   `json:"sum"`
	Slots   json.RawMessage `json:"slots"`
}

// Encode returns the one encoding of j, or an error where it would exceed the
// bounds that Decode holds.
func Encode(j *Journal) ([]byte, error) {
	slots := j.Slots()
	if slots == nil {
		slots = []Slot{}
	}
	if len(slots) > MaxSlots {
		return nil, fmt.Errorf("%d slots exceed %d", len(slots), MaxSlots)
	}
	for _, s := range slots {
		if err := s.check(); err != nil {
			return nil, err
		}
	}
	raw, err := json.Marshal(slots)
	if err != nil {
		return nil, err
	}
	data, err := json.Marshal(envelope{Version: formatVersion, Sum: digest.FromBytes(raw), Slots: raw})
	if err != nil {
		return nil, err
	}
	if len(data) > MaxBytes {
		return nil, fmt.Errorf("%d bytes exceed %d", len(data), MaxBytes)
	}
	return data, nil
}

// Decode reads strictly what Encode wrote; everything else is ErrDamaged.
func Decode(data []byte) (*Journal, error) {
	if len(data) > MaxBytes {
		return nil, fmt.Errorf("%w: %d bytes exceed %d", ErrDamaged, len(data), MaxBytes)
	}
	var e envelope
	if err := strict(data, &e); err != nil {
		return nil, err
	}
	if e.Version != formatVersion {
		return nil, fmt.Errorf("%w: it has version %d, not %d", ErrDamaged, e.Version, formatVersion)
	}
	if digest.FromBytes(e.Slots) != e.Sum {
		return nil, fmt.Errorf("%w: its checksum does not match", ErrDamaged)
	}
	var slots []Slot
	if err := strict(e.Slots, &slots); err != nil {
		return nil, err
	}
	if len(slots) > MaxSlots {
		return nil, fmt.Errorf("%w: %d slots exceed %d", ErrDamaged, len(slots), MaxSlots)
	}
	j := &Journal{}
	for i, s := range slots {
		if err := s.check(); err != nil {
			return nil, fmt.Errorf("%w: %w", ErrDamaged, err)
		}
		if i > 0 && slots[i-1].Key.Compare(s.Key) >= 0 {
			return nil, fmt.Errorf("%w: %s is out of order", ErrDamaged, s.Key)
		}
		j.Put(s)
	}
	return j, nil
}

func strict(data []byte, into any) error {
	decoder := json.NewDecoder(bytes.NewReader(data))
	decoder.DisallowUnknownFields()
	if err := decoder.Decode(into); err != nil {
		return fmt.Errorf("%w: %w", ErrDamaged, err)
	}
	if _, err := decoder.Token(); !errors.Is(err, io.EOF) {
		return fmt.Errorf("%w: data after its end", ErrDamaged)
	}
	return nil
}
