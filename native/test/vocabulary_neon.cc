#include "simd/neon.h"

#include "test/vocabulary.h"

namespace openwork::test {

extern const Vocabulary kNeonVocabulary = vocabulary_of<Neon>();

}  // namespace openwork::test
