#include "simd/avx2.h"

#include "test/vocabulary.h"

namespace openwork::test {

extern const Vocabulary kAvx2Vocabulary = vocabulary_of<Avx2>();

}  // namespace openwork::test
