package fetch

import (
	"bytes"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"slices"
	"strings"
	"time"
	"unicode"

	"github.com/opencontainers/go-digest"

	"github.com/confine-dev/confine/pkg/artifact"
	"github.com/confine-dev/confine/pkg/artifact/reference"
	"github.com/confine-dev/confine/pkg/artifact/trust"
	"github.com/confine-dev/confine/pkg/reason"
)

// Bounds on what either side reads, beside those of package artifact.
const (
	// MaxHeaderBytes bounds one header. The longest honest one holds a message
	// of maxMessageBytes, each of which JSON may write as six.
	MaxHeaderBytes  = 4 << 10
	maxMessageBytes = 512
	// maxAnnotations bounds the annotations of one candidate; cosign makes
	// five. More are no signature, and are passed over by the child.
	maxAnnotations = 256
	// maxRetryAfter bounds how long the child can ask to be left alone.
	maxRetryAfter = time.Hour
)

// What is asked, what is answered, and what is said within a walk.
const (
	askManifest   = "manifest"
	askBlob       = "blob"
	askSignatures = "signatures"

	answerBytes     = "bytes"     // Size bytes follow
	answerError     = "error"     // it cannot be had
	answerCandidate = "candidate" // Size bytes of payload follow, then Annotations keys and values
	answerSkipped   = "skipped"   // one candidate, or a place, cannot be had
	answerSeen      = "seen"      // a question: was ID seen?
	answerEnd       = "end"       // of a walk

	sayNext = "next" // the parent wants the next candidate
	sayYes  = "yes"  // it was seen
	sayNo   = "no"
)

var (
	errVersion  = errors.New("it speaks another version of the protocol")
	errSpelling = errors.New("a header is not spelled as this program spells it")
)

// request is the header that begins a request.
type request struct {
	Ask        string        `json:"ask"`
	Repository string        `json:"repository"`
	Digest     digest.Digest `json:"digest"`
	// Size is that of a blob, in bytes.
	Size int64 `json:"size,omitempty"`
}

// word is a header of the parent within a walk.
type word struct {
	Say string `json:"say"`
}

// answer is a header of the child.
type answer struct {
	Kind string `json:"kind"`
	// Size is how many bytes follow.
	Size int64         `json:"size,omitempty"`
	ID   digest.Digest `json:"id,omitempty"`
	Form trust.Form    `json:"form,omitempty"`
	// Annotations is how many follow.
	Annotations int           `json:"annotations,omitempty"`
	Reason      reason.Reason `json:"reason,omitempty"`
	Message     string        `json:"message,omitempty"`
	// RetryAfter is in milliseconds.
	RetryAfter int64 `json:"retryAfter,omitempty"`
}

// encode returns a frame without what follows its header.
func encode(header any) ([]byte, error) {
	data, err := json.Marshal(header)
	if err != nil {
		return nil, err
	}
	if len(data) > MaxHeaderBytes {
		return nil, fmt.Errorf("a header of %d bytes is too long", len(data))
	}
	return append(binary.BigEndian.AppendUint32(nil, uint32(len(data))), data...), nil //nolint:gosec // bounded above
}

// readHeader reads the header of the next frame.
func readHeader(r io.Reader) ([]byte, error) {
	var length [4]byte
	if _, err := io.ReadFull(r, length[:]); err != nil {
		return nil, err
	}
	n := binary.BigEndian.Uint32(length[:])
	if n > MaxHeaderBytes {
		return nil, fmt.Errorf("a header of %d bytes is too long", n)
	}
	data := make([]byte, n)
	if _, err := io.ReadFull(r, data); err != nil {
		return nil, noEOF(err)
	}
	return data, nil
}

// decode reads a header. Only the one spelling of it is taken that encode
// makes: there is nothing that two readers could read differently, no unknown
// field, no key twice.
func decode[T request | word | answer](data []byte) (T, error) {
	var header, none T
	if err := json.Unmarshal(data, &header); err != nil {
		return none, errSpelling
	}
	again, err := json.Marshal(header)
	if err != nil || !bytes.Equal(again, data) {
		return none, errSpelling
	}
	return header, nil
}

// decodeRequest reads and checks the header of a request.
func decodeRequest(data []byte) (request, reference.Repository, error) {
	req, err := decode[request](data)
	if err != nil {
		return request{}, reference.Repository{}, err
	}
	repo, err := reference.ParseRepository(req.Repository)
	if err != nil {
		return request{}, reference.Repository{}, err
	}
	switch {
	case repo.String() != req.Repository:
		return request{}, reference.Repository{}, errors.New("the repository's name is not canonical")
	case !isSHA256(req.Digest):
		return request{}, reference.Repository{}, errors.New("it names no sha256 digest")
	case req.Ask == askBlob && req.Size >= 0 && req.Size <= artifact.MaxArtifactBytes:
	case req.Ask != askManifest && req.Ask != askSignatures, req.Size != 0:
		return request{}, reference.Repository{}, fmt.Errorf("%.20q of %d bytes cannot be asked for", req.Ask, req.Size)
	}
	return req, repo, nil
}

// readAnswer reads the next header of a child and checks that it says what its
// kind says, and nothing else. What follows it is bounded here.
func readAnswer(r io.Reader) (answer, error) {
	data, err := readHeader(r)
	if err != nil {
		return answer{}, err
	}
	a, err := decode[answer](data)
	if err != nil {
		return answer{}, err
	}
	return a, a.check()
}

func (a answer) check() error {
	rest := a
	rest.Kind = ""
	switch a.Kind {
	case answerBytes:
		if a.Size < 0 || a.Size > artifact.MaxArtifactBytes {
			return fmt.Errorf("%d bytes are out of bounds", a.Size)
		}
		rest.Size = 0
	case answerError, answerSkipped:
		if a.Kind == answerSkipped && a.ID != "" && !isSHA256(a.ID) || a.RetryAfter < 0 {
			return errors.New("an error is not in its form")
		}
		rest.Reason, rest.Message, rest.RetryAfter = "", "", 0
		if a.Kind == answerSkipped {
			rest.ID = ""
		}
	case answerCandidate:
		switch {
		case !isSHA256(a.ID), a.Form != trust.FormBundle && a.Form != trust.FormSimpleSigning:
			return errors.New("a candidate is not in its form")
		case a.Size < 0 || a.Size > trust.MaxCandidateBytes || a.Annotations < 0 || a.Annotations > maxAnnotations:
			return errors.New("a candidate is out of bounds")
		}
		rest.ID, rest.Form, rest.Size, rest.Annotations = "", "", 0, 0
	case answerSeen:
		if !isSHA256(a.ID) {
			return errors.New("a question is not in its form")
		}
		rest.ID = ""
	case answerEnd:
	default:
		return fmt.Errorf("%.20q is no answer", a.Kind)
	}
	if rest != (answer{}) {
		return fmt.Errorf("an answer of the kind %s says more than it may", a.Kind)
	}
	return nil
}

// writeCandidate writes a candidate's frame, and reports false without writing
// one for a candidate that is out of bounds.
func writeCandidate(w io.Writer, c trust.Candidate) (bool, error) {
	size := len(c.Payload)
	for key, value := range c.Annotations {
		size += len(key) + len(value)
	}
	if size > trust.MaxCandidateBytes || len(c.Annotations) > maxAnnotations {
		return false, nil
	}
	frame, err := encode(answer{Kind: answerCandidate, ID: c.ID, Form: c.Form, Size: int64(len(c.Payload)), Annotations: len(c.Annotations)})
	if err != nil {
		return false, err
	}
	frame = append(frame, c.Payload...)
	for _, key := range slices.Sorted(maps.Keys(c.Annotations)) {
		for _, text := range []string{key, c.Annotations[key]} {
			frame = append(binary.BigEndian.AppendUint32(frame, uint32(len(text))), text...) //nolint:gosec // bounded above
		}
	}
	_, err = w.Write(frame)
	return true, err
}

// readCandidate reads what follows the header of a candidate: at most
// MaxCandidateBytes in all, keys in ascending order.
func readCandidate(r io.Reader, a answer) (trust.Candidate, error) {
	c := trust.Candidate{ID: a.ID, Form: a.Form}
	var err error
	if c.Payload, err = readBytes(r, a.Size); err != nil {
		return trust.Candidate{}, err
	}
	left := trust.MaxCandidateBytes - a.Size
	text := func() (string, error) {
		var length [4]byte
		if _, err := io.ReadFull(r, length[:]); err != nil {
			return "", noEOF(err)
		}
		n := int64(binary.BigEndian.Uint32(length[:]))
		if left -= n; left < 0 {
			return "", errors.New("a candidate is out of bounds")
		}
		data, err := readBytes(r, n)
		return string(data), err
	}
	before := ""
	for i := range a.Annotations {
		key, err := text()
		if err != nil {
			return trust.Candidate{}, err
		}
		if i > 0 && key <= before {
			return trust.Candidate{}, errors.New("a candidate's annotations are not in their order")
		}
		value, err := text()
		if err != nil {
			return trust.Candidate{}, err
		}
		if c.Annotations == nil {
			c.Annotations = make(map[string]string, a.Annotations)
		}
		c.Annotations[key], before = value, key
	}
	return c, nil
}

// readBytes reads n bytes, which the caller has bounded.
func readBytes(r io.Reader, n int64) ([]byte, error) {
	data := make([]byte, n)
	_, err := io.ReadFull(r, data)
	return data, noEOF(err)
}

// noEOF tells an end in the middle from one between frames.
func noEOF(err error) error {
	if errors.Is(err, io.EOF) {
		return io.ErrUnexpectedEOF
	}
	return err
}

func isSHA256(d digest.Digest) bool {
	return d.Validate() == nil && d.Algorithm() == digest.SHA256
}

// clean makes foreign text fit for a message or a log: printable, on one line,
// of no more bytes than most.
func clean(text string, most int) string {
	text = text[:min(len(text), 4*most)] // bounds the work below
	text = strings.Map(func(r rune) rune {
		if unicode.IsPrint(r) && r != unicode.ReplacementChar {
			return r
		}
		return ' '
	}, text)
	text = strings.Join(strings.Fields(text), " ")
	if len(text) > most {
		text = strings.ToValidUTF8(text[:most-len("…")], "") + "…"
	}
	return text
}
