/* The hash table under KeyedFold: from a key to the number of its entry, in order of first appearance.

   A look-up of a text touches one word of the index and one entry, and the text itself only to read it: an entry holds the
   first and the last 8 bytes of its text and the length, which is all there is of a text of up to 16 bytes. Longer texts are
   condensed to two words and compared when those agree. All other keys come with a hash of their own and are compared by
   Python's ==.

   Nothing here is kept between two processes, so the mixing is seeded anew in each: nobody can prepare keys that collide. */

#ifndef SAGE_KEY_TABLE_H
#define SAGE_KEY_TABLE_H

#include <Python.h>
#include <limits.h>
#include <stdint.h>
#include <string.h>

#if defined(_MSC_VER) && !defined(__clang__)
#include <intrin.h>
#define KEY_PREFETCH(at) _mm_prefetch((const char *)(at), _MM_HINT_T0)
#define KEY_LIKELY(condition) (condition)
#else
#define KEY_PREFETCH(at) __builtin_prefetch(at)
#define KEY_LIKELY(condition) __builtin_expect(!!(condition), 1)
#endif

/* `meta`: the kind of the text (1, 2 or 4 bytes a character; 0 is no text), KEY_ODD, and from bit 4 on the size in bytes. */
#define KEY_KIND 7u
#define KEY_ODD 8u /* compared by its own ==: a subclass of str that redefines it, or a key whose __stable_key__ is a text */
#define KEY_SIZE_SHIFT 4
#define KEY_LONGEST 0x0fffffffu
#define KEY_INLINE 16 /* texts of up to so many bytes are a, b and meta, nothing else */

#define KEY_AHEAD 16 /* records looked up together; enough to hide the memory behind one another */
#define KEY_MOST 0xfffffff0LL /* an entry's number takes 32 bits of an index word */

/* What a table knows of a key. Keys that agree in all of it are equal if they are short texts, and candidates otherwise. */
typedef struct {
    uint64_t a, b;
    uint64_t hash;
    uint64_t slot, mask; /* where a search that found nothing ended, and the mask it went by; 0: there was none */
    uint32_t meta;
} KeyDigest;

typedef struct {
    uint64_t a, b;
    uint32_t meta;
    uint16_t form;  /* what `number` is; belongs to the caller */
    uint8_t owned;   /* whether the reference to `key` is ours */
    uint8_t changed; /* whether it is on the owner's list of changed entries, or need not be */
    int64_t number;
    PyObject *key;
} KeyEntry;

typedef struct {
    uint64_t *index;   /* open addressing: upper half of the hash, then number of the entry + 1; 0 is free */
    KeyEntry *entries; /* in order of first appearance; they are never removed or moved to another number */
    uint64_t mask;
    Py_ssize_t count, room;
    Py_ssize_t odd;    /* how many entries are KEY_ODD */
} KeyTable;

/* The next records' entries; -1 where there was none when we looked. */
typedef struct {
    Py_ssize_t at[KEY_AHEAD];
    KeyDigest digests[KEY_AHEAD];
    Py_ssize_t first, size;
    int results; /* whether the known keys themselves will be needed, to go into results */
} KeysAhead;

static uint64_t key_seed_a, key_seed_b;

static inline void key_table_seed(uint64_t a, uint64_t b) {
    key_seed_a = a | 1;
    key_seed_b = b | 1;
}

static inline uint64_t key_mix(uint64_t a, uint64_t b) {
#if defined(_MSC_VER) && !defined(__clang__)
    uint64_t high, low = _umul128(a, b, &high);
    return low ^ high;
#else
    __uint128_t product = (__uint128_t)a * b;
    return (uint64_t)product ^ (uint64_t)(product >> 64);
#endif
}

static inline uint64_t key_read8(const unsigned char *at) { uint64_t word; memcpy(&word, at, 8); return word; }
static inline uint64_t key_read4(const unsigned char *at) { uint32_t word; memcpy(&word, at, 4); return word; }

/* Odd keys and plain ones that may equal them must meet, so KEY_ODD takes no part. */
static inline uint64_t key_hash(uint64_t a, uint64_t b, uint32_t meta) {
    return key_mix(key_mix(a ^ key_seed_b, b ^ key_seed_a) ^ (meta & ~KEY_ODD), key_seed_b);
}

/* `text` is a ready str or an instance of a subclass. Equal strings have the same kind: CPython stores the narrowest. */
static inline void key_digest_text(PyObject *text, KeyDigest *digest) {
    const unsigned char *at;
    size_t size = (size_t)PyUnicode_GET_LENGTH(text), left;
    unsigned int kind = 1;
    uint64_t a, b;
    if (KEY_LIKELY(PyUnicode_IS_COMPACT_ASCII(text))) {
        at = (const unsigned char *)((PyASCIIObject *)text + 1);
    } else {
        kind = (unsigned int)PyUnicode_KIND(text);
        size *= kind;
        at = (const unsigned char *)PyUnicode_DATA(text);
    }
    if (size > 16) {
        a = key_seed_a;
        b = key_seed_b;
        for (left = size; left > 16; left -= 16, at += 16) {
            a = key_mix(key_read8(at) ^ a, key_read8(at + 8) ^ b);
            b += a;
        }
        /* the last 16 bytes, some of them again */
        a ^= key_read8(at + left - 16);
        b ^= key_read8(at + left - 8);
    } else if (size >= 8) {
        a = key_read8(at);
        b = key_read8(at + size - 8);
    } else if (size >= 4) {
        a = key_read4(at);
        b = key_read4(at + size - 4);
    } else {
        a = size > 0 ? at[0] | (uint64_t)at[size >> 1] << 8 | (uint64_t)at[size - 1] << 16 : 0;
        b = 0;
    }
    digest->a = a;
    digest->b = b;
    digest->meta = (uint32_t)(size < KEY_LONGEST ? size : KEY_LONGEST) << KEY_SIZE_SHIFT | kind;
    digest->hash = key_hash(a, b, digest->meta);
    digest->mask = 0;
}

/* For a key that is no text: `hashed` is equal for equal keys. */
static inline void key_digest_hash(uint64_t hashed, KeyDigest *digest) {
    digest->a = hashed;
    digest->b = 0;
    digest->meta = 0;
    digest->hash = key_hash(hashed, 0, 0);
    digest->mask = 0;
}

/* Whether an instance of str or of a subclass compares as any str does. */
static inline int key_compares_as_text(PyObject *key) { return Py_TYPE(key)->tp_richcompare == PyUnicode_Type.tp_richcompare; }

static inline int key_same_text(PyObject *a, PyObject *b) {
    Py_ssize_t size = PyUnicode_GET_LENGTH(a);
    return size == PyUnicode_GET_LENGTH(b) && PyUnicode_KIND(a) == PyUnicode_KIND(b)
        && memcmp(PyUnicode_DATA(a), PyUnicode_DATA(b), (size_t)size * (size_t)PyUnicode_KIND(a)) == 0;
}

static inline int key_is_inline(uint32_t meta) { return (meta >> KEY_SIZE_SHIFT) <= KEY_INLINE; }

static inline uint64_t key_index_word(uint64_t hash, Py_ssize_t entry) {
    return (hash & 0xffffffff00000000ULL) | (uint64_t)(entry + 1);
}

static inline Py_ssize_t key_entry_of(uint64_t word) { return (Py_ssize_t)(word & 0xffffffffU) - 1; }

static int key_table_init(KeyTable *table) {
    memset(table, 0, sizeof(KeyTable));
    table->index = (uint64_t *)PyMem_Calloc(16, sizeof(uint64_t));
    table->entries = (KeyEntry *)PyMem_Malloc(8 * sizeof(KeyEntry));
    if (table->index == NULL || table->entries == NULL) {
        PyMem_Free(table->index);
        PyMem_Free(table->entries);
        memset(table, 0, sizeof(KeyTable));
        PyErr_NoMemory();
        return -1;
    }
    table->mask = 15;
    table->room = 8;
    return 0;
}

/* Releasing keys can run any code: nothing may reach the table any more. Right for a zeroed table, too. */
static void key_table_free(KeyTable *table) {
    Py_ssize_t at;
    for (at = 0; at < table->count; at++) {
        if (table->entries[at].owned) Py_DECREF(table->entries[at].key);
    }
    PyMem_Free(table->entries);
    PyMem_Free(table->index);
    memset(table, 0, sizeof(KeyTable));
}

static int key_table_widen(KeyTable *table) {
    uint64_t mask = table->mask * 2 + 1, slot, hash;
    uint64_t *index = (uint64_t *)PyMem_Calloc((size_t)mask + 1, sizeof(uint64_t));
    Py_ssize_t at;
    if (index == NULL) {
        PyErr_NoMemory();
        return -1;
    }
    for (at = 0; at < table->count; at++) {
        KeyEntry *entry = &table->entries[at];
        hash = key_hash(entry->a, entry->b, entry->meta);
        for (slot = hash & mask; index[slot]; slot = (slot + 1) & mask) {}
        index[slot] = key_index_word(hash, at);
    }
    PyMem_Free(table->index);
    table->index = index;
    table->mask = mask;
    return 0;
}

/* Makes room for one more entry. The index is at most two thirds full; entries grow by three eighths: to more, memory would
   go to waste, to less, time to copying them. */
static inline int key_table_reserve(KeyTable *table) {
    if (table->count == table->room) {
        Py_ssize_t room = table->room + (table->room >> 2) + (table->room >> 3) + 8;
        void *entries = PyMem_Realloc(table->entries, (size_t)room * sizeof(KeyEntry));
        if (entries == NULL) {
            PyErr_NoMemory();
            return -1;
        }
        table->entries = (KeyEntry *)entries;
        table->room = room;
    }
    return (uint64_t)(table->count + 1) * 3 > (table->mask + 1) * 2 ? key_table_widen(table) : 0;
}

/* Where the search for a key begins, or goes on: entries stay, so what the last one passed is still no match. */
static inline uint64_t key_search_from(const KeyTable *table, const KeyDigest *digest) {
    return digest->mask == table->mask ? digest->slot : digest->hash & table->mask;
}

/* Adds a key that is not in the table, after key_table_reserve. */
static inline Py_ssize_t key_table_add(KeyTable *table, PyObject *key, const KeyDigest *digest, int owned) {
    uint64_t slot = key_search_from(table, digest);
    Py_ssize_t at = table->count;
    KeyEntry *entry = &table->entries[at];
    while (table->index[slot]) slot = (slot + 1) & table->mask;
    table->index[slot] = key_index_word(digest->hash, at);
    if (owned) Py_INCREF(key);
    entry->a = digest->a;
    entry->b = digest->b;
    entry->meta = digest->meta;
    entry->form = 0;
    entry->owned = (uint8_t)owned;
    entry->changed = 1;
    entry->number = 0;
    entry->key = key;
    table->odd += (digest->meta & KEY_ODD) != 0;
    table->count = at + 1;
    return at;
}

/* 1 if the key of the digest is that of the entry, -1 with an exception. May run any code, which must leave the table alone. */
static inline int key_matches(const KeyEntry *entry, const KeyDigest *digest, PyObject *key) {
    if (entry->a != digest->a || entry->b != digest->b || ((entry->meta ^ digest->meta) & ~KEY_ODD) != 0) return 0;
    if (entry->key == key) return 1;
    if (!(digest->meta & KEY_KIND) || ((entry->meta | digest->meta) & KEY_ODD)) {
        return PyObject_RichCompareBool(entry->key, key, Py_EQ);
    }
    return key_is_inline(digest->meta) || key_same_text(entry->key, key);
}

/* Number of the entry, -1 if there is none, -2 with an exception. May run any code, which must leave the table alone. */
static inline Py_ssize_t key_table_find(const KeyTable *table, KeyDigest *digest, PyObject *key) {
    uint64_t slot = key_search_from(table, digest), word;
    for (;; slot = (slot + 1) & table->mask) {
        word = table->index[slot];
        if (word == 0) {
            digest->slot = slot;
            digest->mask = table->mask;
            return -1;
        }
        if ((word ^ digest->hash) >> 32 == 0) {
            int same = key_matches(&table->entries[key_entry_of(word)], digest, key);
            if (same) return same > 0 ? key_entry_of(word) : -2;
        }
    }
}

static inline int key_is_ready_text(PyObject *key) {
#if PY_VERSION_HEX < 0x030C0000
    return PyUnicode_CheckExact(key) && PyUnicode_IS_READY(key);
#else
    return PyUnicode_CheckExact(key);
#endif
}

/* Looks up the run of exact strings that begins at record `first`; its size is 0 if there is none. Each step goes through all
   of them, so that the processor fetches the words of the index at once, then the entries, then the known keys if these are
   going to be needed. Runs no code. */
static void key_table_look_ahead(const KeyTable *table, PyObject *keys, Py_ssize_t first, KeysAhead *ahead) {
    PyObject **items = PySequence_Fast_ITEMS(keys) + first;
    Py_ssize_t size = PyList_GET_SIZE(keys) - first, j;
    int known = ahead->results;
    uint64_t word;
    ahead->first = first;
    ahead->size = 0;
    if (table->odd) return; /* a string may equal an odd key, and it takes Python to find out */
    if (size > KEY_AHEAD) size = KEY_AHEAD;
    for (j = 0; j < size && key_is_ready_text(items[j]); j++) {
        key_digest_text(items[j], &ahead->digests[j]);
        known |= !key_is_inline(ahead->digests[j].meta);
        KEY_PREFETCH(&table->index[ahead->digests[j].hash & table->mask]);
    }
    size = ahead->size = j;
    for (j = 0; j < size; j++) {
        word = table->index[ahead->digests[j].hash & table->mask];
        if (word) KEY_PREFETCH(&table->entries[key_entry_of(word)]);
    }
    for (j = 0; known && j < size; j++) {
        word = table->index[ahead->digests[j].hash & table->mask];
        if (word) {
            const char *key = (const char *)table->entries[key_entry_of(word)].key;
            KEY_PREFETCH(key);
            if (!key_is_inline(ahead->digests[j].meta)) KEY_PREFETCH(key + 64);
        }
    }
    for (j = 0; j < size; j++) ahead->at[j] = key_table_find(table, &ahead->digests[j], items[j]);
}

/* (key, value); steals the reference to `value`. A pair that cannot be part of a cycle need not be visited by the cycle
   collector, which would find that out for itself after one visit; results are many and the visits show. */
static inline PyObject *key_pair_stealing(PyObject *key, PyObject *value, int untracked) {
    PyObject *pair = PyTuple_New(2);
    if (pair == NULL) {
        Py_DECREF(value);
        return NULL;
    }
    Py_INCREF(key);
    PyTuple_SET_ITEM(pair, 0, key);
    PyTuple_SET_ITEM(pair, 1, value);
    if (untracked && (PyUnicode_CheckExact(key) || !PyObject_IS_GC(key))) PyObject_GC_UnTrack(pair);
    return pair;
}

static inline PyObject *key_pair(PyObject *key, PyObject *value) {
    Py_INCREF(value);
    return key_pair_stealing(key, value, !PyObject_IS_GC(value));
}

static inline PyObject *key_integer_pair(PyObject *key, int64_t number) {
    PyObject *value = PyLong_FromLongLong(number);
    return value == NULL ? NULL : key_pair_stealing(key, value, 1);
}

#endif
