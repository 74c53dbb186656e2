package identity

// Heard counts the credential changes that this replica has heard of.
func (s *Service) Heard() uint64 { return s.remembered.epoch.Load() }
