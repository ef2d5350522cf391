package registry

import "strings"

const maxChallengeBytes = 8 << 10

// parseChallenges reads WWW-Authenticate headers (RFC 9110, section 11.6.1)
// into parameters by lower-case scheme; of several challenges with the same
// scheme the first counts. What cannot be read ends the header.
func parseChallenges(headers []string) map[string]map[string]string {
	found := map[string]map[string]string{}
	for _, header := range headers {
		if len(header) > maxChallengeBytes || len(found) > 8 {
			break
		}
		parseChallenge(header, found)
	}
	return found
}

func parseChallenge(s string, found map[string]map[string]string) {
	var params map[string]string // of the scheme being read
	for {
		s = strings.TrimLeft(s, " \t,")
		name, rest := cutToken(s)
		if name == "" {
			return
		}
		trimmed := strings.TrimLeft(rest, " \t")
		if params == nil || !strings.HasPrefix(trimmed, "=") {
			// A scheme: its name is followed by a blank, a comma or the end.
			params = map[string]string{}
			scheme := strings.ToLower(name)
			if _, again := found[scheme]; !again {
				found[scheme] = params
			}
			s = rest
			continue
		}
		value, rest, ok := cutValue(strings.TrimLeft(trimmed[1:], " \t"))
		if !ok {
			return
		}
		name = strings.ToLower(name)
		if _, again := params[name]; !again {
			params[name] = value
		}
		s = rest
	}
}

// cutValue reads a token or a quoted string.
func cutValue(s string) (value, rest string, ok bool) {
	if !strings.HasPrefix(s, `"`) {
		value, rest = cutToken(s)
		return value, rest, value != ""
	}
	var b strings.Builder
	for i := 1; i < len(s); i++ {
		switch {
		case s[i] == '"':
			return b.String(), s[i+1:], true
		case s[i] == '\\' && i+1 < len(s):
			i++
		}
		b.WriteByte(s[i])
	}
	return "", "", false
}

// cutToken reads a token of RFC 9110, section 5.6.2.
func cutToken(s string) (token, rest string) {
	i := strings.IndexFunc(s, func(r rune) bool {
		return (r < 'a' || r > 'z') && (r < 'A' || r > 'Z') && (r < '0' || r > '9') &&
			!strings.ContainsRune("!#$%&'*+-.^_`|~", r)
	})
	if i < 0 {
		return s, ""
	}
	return s[:i], s[i:]
}
