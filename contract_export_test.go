package bsdnet

// Outstanding returns how many buffers, and how many bytes of them, the stack holds: 0 and 0 where nothing has leaked.
func (s *Stack) Outstanding() (mbufs, bytes int64) { return s.k.Pool().Outstanding() }

// ConnInfoOf is connInfo.
var ConnInfoOf = connInfo
