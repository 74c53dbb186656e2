package space

import "github.com/google/uuid"

// NewID makes an id for something in a space: a UUIDv7 with the space's bucket, so that the id alone says where its
// row is. The bucket is only a hint, never a permission: two spaces may share one, and older ids have a random one.
//
// RFC 9562, 5.7: after the 48 bits of time, 4 of version, 12 of rand_a and 2 of variant, a UUIDv7 ends with the
// 62 bits of rand_b. Here the first 16 of them, bits 66 to 81 of the UUID, are copied from the space's id. They
// are the low 6 bits of octet 8, all of octet 9, and the high 2 bits of octet 10, counted from 0. (6.4 allows
// bits that identify nodes.) The other 46 stay random, so that ids of one space and moment still differ (6.7).
func NewID(space uuid.UUID) uuid.UUID {
	id := uuid.Must(uuid.NewV7())
	id[8] = id[8]&^low6 | space[8]&low6
	id[9] = space[9]
	id[10] = id[10]&low6 | space[10]&^low6
	return id
}

const low6 = 0x3f

// Bucket returns the 16 bits of an id that NewID copies: where a router looks first.
func Bucket(id uuid.UUID) uint16 {
	return uint16(id[8]&low6)<<10 | uint16(id[9])<<2 | uint16(id[10])>>6
}
