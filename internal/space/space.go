package space

import "github.com/google/uuid"

// NewID makes an id for something in a space: a UUIDv7 whose bucket is the space's, so that the id
// alone says where its row is. That is a hint: two spaces may share a bucket, and older ids have one
// at random. It is never a permission.
//
// RFC 9562, 5.7: behind the 48 bits of time, 4 of version, 12 of rand_a and 2 of variant, a UUIDv7 ends
// with the 62 bits of rand_b. Here the first 16 of them, bits 66 to 81 of the UUID, are those of the
// space's id at the same place. This is the low 6 bits of octet 8, all of octet 9, and the high 2
// bits of octet 10, counted from 0. (6.4 has room for bits that tell nodes apart.) The 46 bits behind
// stay random, so that ids of one space and one moment still differ (6.7).
func NewID(space uuid.UUID) uuid.UUID {
	id := uuid.Must(uuid.NewV7())
	id[8] = id[8]&^low6 | space[8]&low6
	id[9] = space[9]
	id[10] = id[10]&low6 | space[10]&^low6
	return id
}

const low6 = 0x3f

// Bucket is the 16 bits of an id that NewID copies: where a router looks first.
func Bucket(id uuid.UUID) uint16 {
	return uint16(id[8]&low6)<<10 | uint16(id[9])<<2 | uint16(id[10])>>6
}
