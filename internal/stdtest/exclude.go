package main

import (
	"regexp"
	"strings"
)

// excluded gives, by package and test, the reason why it need not pass over bsdnet.
var excluded = map[string]map[string]string{}

// excludedFor returns why a test of pkg, or one that it is part of, is excluded; "" if it is not.
func excludedFor(pkg, test string) string {
	for name, reason := range excluded[pkg] {
		if test == name || strings.HasPrefix(test, name+"/") {
			return reason
		}
	}
	return ""
}

// skipPattern is the -skip flag for the excluded tests of pkg.
func skipPattern(pkg string) string {
	var alts []string
	for name := range excluded[pkg] {
		var elems []string
		for elem := range strings.SplitSeq(name, "/") {
			elems = append(elems, "^"+regexp.QuoteMeta(elem)+"$")
		}
		alts = append(alts, strings.Join(elems, "/"))
	}
	return strings.Join(alts, "|")
}
