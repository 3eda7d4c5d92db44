/* The row of each stored id, in a quarter of the memory that a dictionary takes; `store/index.py` has the same on one.
 *
 * An open-addressing hash table of positions, beside two arrays in the order in which ids came. A slot holds a position
 * in its low bits and the id's hash in the others, so strings that differ are hardly ever looked at. A removed id leaves
 * a hole in the arrays, and its slot stays taken, until room runs out and everything is placed again.
 *
 * Ids are plain `str`; subclasses are converted. So nothing here runs Python code or lets the interpreter's lock go: to
 * other threads each call happens at once, as with a dictionary.
 */
#define PY_SSIZE_T_CLEAN
#include <Python.h>
#include <stdint.h>
#include <string.h>

typedef struct {
    PyObject_HEAD
    PyObject **ids;  /* [room, or `expected` if that is more], NULL where one was removed */
    int32_t *rows;   /* [room]; NULL while all rows are positions, as they are until one is replaced or holes are closed */
    uint32_t *slots; /* [1 << bits] */
    int bits;
    size_t expected;     /* ids: addresses for them are reserved at once, memory is taken for those that come */
    uint32_t end, count; /* positions that are taken, and those of them that hold an id */
} RowIndex;

#define FREE UINT32_MAX /* no position: fewer positions than slots are used */
#define ROOM(bits) (((size_t)1 << (bits)) / 8 * 7)
enum { LEAST_BITS = 6, MOST_BITS = 30, UNKNOWN = -1, FAILED = -2 };

/* A new reference to the id as a plain `str`; NULL without an exception if it is no `str` at all. */
static PyObject *plain(PyObject *id) {
    if (PyUnicode_CheckExact(id)) {
        Py_INCREF(id);
        return id;
    }
    return PyUnicode_Check(id) ? PyUnicode_FromObject(id) : NULL;
}

/* The position of a plain id, or UNKNOWN. */
static int64_t position_of(const RowIndex *index, PyObject *id, uint32_t hash) {
    const uint32_t mask = ((uint32_t)1 << index->bits) - 1;
    for (uint32_t at = hash & mask;; at = (at + 1) & mask) {
        const uint32_t slot = index->slots[at];
        if (slot == FREE) return UNKNOWN;
        if ((slot ^ hash) & ~mask) continue;
        PyObject *const other = index->ids[slot & mask];
        if (other == id || (other != NULL && PyUnicode_Compare(other, id) == 0)) return slot & mask;
    }
}

static int32_t row_at(const RowIndex *index, int64_t at) { return index->rows == NULL ? (int32_t)at : index->rows[at]; }

/* Write rows down, as one of them is about to differ from its position; -1 and an exception if there is no memory. */
static int write_rows(RowIndex *index) {
    if (index->rows != NULL) return 0;
    int32_t *const rows = PyMem_Malloc(ROOM(index->bits) * sizeof(*rows));
    if (rows == NULL) {
        PyErr_NoMemory();
        return -1;
    }
    for (uint32_t n = 0; n < index->end; n++) rows[n] = (int32_t)n;
    index->rows = rows;
    return 0;
}

static void place(uint32_t *slots, int bits, uint32_t position, uint32_t hash) {
    const uint32_t mask = ((uint32_t)1 << bits) - 1;
    uint32_t at = hash & mask;
    while (slots[at] != FREE) at = (at + 1) & mask;
    slots[at] = (hash & ~mask) | position;
}

/* Close the holes, and grow if an eighth would not be free then; -1 and an exception if there is no memory. */
static int make_room(RowIndex *index) {
    if (index->count < index->end && write_rows(index) < 0) return -1;
    int bits = index->slots == NULL ? LEAST_BITS : index->bits;
    while (bits <= MOST_BITS && ROOM(bits) < (size_t)index->count + index->count / 8 + 1) bits++;
    uint32_t *const slots = bits <= MOST_BITS ? PyMem_Malloc(sizeof(*slots) << bits) : NULL;
    const size_t room = ROOM(bits) > index->expected ? ROOM(bits) : index->expected;
    PyObject **const ids = slots == NULL ? NULL : PyMem_Realloc(index->ids, room * sizeof(*ids));
    if (ids != NULL) index->ids = ids;
    int32_t *const rows =
        ids == NULL || index->rows == NULL ? NULL : PyMem_Realloc(index->rows, ROOM(bits) * sizeof(*rows));
    if (ids == NULL || (index->rows != NULL && rows == NULL)) {
        PyMem_Free(slots);
        PyErr_NoMemory();
        return -1;
    }
    index->rows = rows;
    memset(slots, 0xff, sizeof(*slots) << bits);
    uint32_t count = 0;
    for (uint32_t n = 0; n < index->end; n++) {
        if (ids[n] == NULL) continue;
        ids[count] = ids[n];
        if (rows != NULL) rows[count] = rows[n];
        place(slots, bits, count++, (uint32_t)PyObject_Hash(ids[n]));
    }
    PyMem_Free(index->slots);
    index->slots = slots;
    index->bits = bits;
    index->end = count;
    return 0;
}

/* The position of any object; FAILED with an exception. */
static int64_t find_one(const RowIndex *index, PyObject *id) {
    PyObject *const text = plain(id);
    if (text == NULL) return PyErr_Occurred() ? FAILED : UNKNOWN;
    const int64_t at = position_of(index, text, (uint32_t)PyObject_Hash(text));
    Py_DECREF(text);
    return at;
}

static int put(RowIndex *index, PyObject *id, int64_t row) {
    if (row < 0 || row > INT32_MAX) {
        PyErr_SetString(PyExc_ValueError, "a row is a number from 0 to 2**31 - 1");
        return -1;
    }
    PyObject *const text = plain(id);
    if (text == NULL) {
        if (!PyErr_Occurred()) PyErr_SetString(PyExc_TypeError, "an id is a str");
        return -1;
    }
    const uint32_t hash = (uint32_t)PyObject_Hash(text);
    const int64_t at = position_of(index, text, hash);
    if (at != UNKNOWN) {
        Py_DECREF(text);
        if (row_at(index, at) == row) return 0;
        if (write_rows(index) < 0) return -1;
        index->rows[at] = (int32_t)row;
        return 0;
    }
    if ((index->end == ROOM(index->bits) && make_room(index) < 0) || (row != index->end && write_rows(index) < 0)) {
        Py_DECREF(text);
        return -1;
    }
    place(index->slots, index->bits, index->end, hash);
    index->ids[index->end] = text;
    if (index->rows != NULL) index->rows[index->end] = (int32_t)row;
    index->end++;
    index->count++;
    return 0;
}

static int set_item(PyObject *self, PyObject *id, PyObject *value) {
    RowIndex *const index = (RowIndex *)self;
    if (value != NULL) {
        int overflow;
        const long long row = PyLong_AsLongLongAndOverflow(value, &overflow);
        return row == -1 && PyErr_Occurred() ? -1 : put(index, id, row);
    }
    const int64_t at = find_one(index, id);
    if (at < 0) {
        if (at == UNKNOWN) PyErr_SetObject(PyExc_KeyError, id);
        return -1;
    }
    PyObject *const removed = index->ids[at];
    index->ids[at] = NULL;
    index->count--;
    Py_DECREF(removed);
    return 0;
}

static PyObject *get_item(PyObject *self, PyObject *id) {
    const int64_t at = find_one((RowIndex *)self, id);
    if (at >= 0) return PyLong_FromLong(row_at((RowIndex *)self, at));
    if (at == UNKNOWN) PyErr_SetObject(PyExc_KeyError, id);
    return NULL;
}

static PyObject *get(PyObject *self, PyObject *id) {
    const int64_t at = find_one((RowIndex *)self, id);
    return at == FAILED ? NULL : PyLong_FromLong(at == UNKNOWN ? -1 : row_at((RowIndex *)self, at));
}

static int contains(PyObject *self, PyObject *id) {
    const int64_t at = find_one((RowIndex *)self, id);
    return at == FAILED ? -1 : at != UNKNOWN;
}

static Py_ssize_t length(PyObject *self) { return ((RowIndex *)self)->count; }

static PyObject *all_ids(PyObject *self, PyObject *unused) {
    (void)unused;
    const RowIndex *const index = (RowIndex *)self;
    PyObject *const list = PyList_New(index->count);
    Py_ssize_t count = 0;
    for (uint32_t n = 0; list != NULL && n < index->end; n++) {
        if (index->ids[n] == NULL) continue;
        Py_INCREF(index->ids[n]);
        PyList_SetItem(list, count++, index->ids[n]);
    }
    return list;
}

/* Arguments `ids` (a list) and `rows` (an int32 array of the same length); -1 and an exception otherwise. */
static int arguments(PyObject *args, int writable, PyObject **ids, Py_buffer *rows) {
    PyObject *array;
    if (!PyArg_ParseTuple(args, "O!O", &PyList_Type, ids, &array)) return -1;
    if (PyObject_GetBuffer(array, rows, PyBUF_ND | PyBUF_FORMAT | (writable ? PyBUF_WRITABLE : 0)) < 0) return -1;
    if (rows->itemsize != 4 || rows->format == NULL || strlen(rows->format) != 1 || strchr("il", *rows->format) == NULL || rows->ndim != 1 ||
        rows->shape[0] != PyList_Size(*ids) || (uintptr_t)rows->buf % sizeof(int32_t) != 0) {
        PyBuffer_Release(rows);
        PyErr_SetString(PyExc_ValueError, "rows: expected an int32 for each id");
        return -1;
    }
    return 0;
}

static PyObject *find(PyObject *self, PyObject *args) {
    PyObject *ids;
    Py_buffer rows;
    if (arguments(args, 1, &ids, &rows) < 0) return NULL;
    int64_t at = 0;
    for (Py_ssize_t n = 0; n < rows.shape[0] && at != FAILED; n++) {
        at = find_one((RowIndex *)self, PyList_GetItem(ids, n));
        ((int32_t *)rows.buf)[n] = at < 0 ? -1 : row_at((RowIndex *)self, at);
    }
    PyBuffer_Release(&rows);
    return at == FAILED ? NULL : Py_NewRef(Py_None);
}

static PyObject *update(PyObject *self, PyObject *args) {
    PyObject *ids;
    Py_buffer rows;
    if (arguments(args, 0, &ids, &rows) < 0) return NULL;
    int failed = 0;
    for (Py_ssize_t n = 0; n < rows.shape[0] && !failed; n++)
        failed = put((RowIndex *)self, PyList_GetItem(ids, n), ((int32_t *)rows.buf)[n]) < 0;
    PyBuffer_Release(&rows);
    return failed ? NULL : Py_NewRef(Py_None);
}

static PyObject *create(PyTypeObject *type, PyObject *args, PyObject *keywords) {
    static char *names[] = {"expected", NULL};
    Py_ssize_t expected = 0;
    if (!PyArg_ParseTupleAndKeywords(args, keywords, "|n:RowIndex", names, &expected)) return NULL;
    PyObject *const self = ((allocfunc)PyType_GetSlot(type, Py_tp_alloc))(type, 0);
    if (self != NULL && expected > 0 && expected <= INT32_MAX) ((RowIndex *)self)->expected = (size_t)expected;
    if (self != NULL && make_room((RowIndex *)self) < 0) {
        Py_DECREF(self);
        return NULL;
    }
    return self;
}

static void dealloc(PyObject *self) {
    RowIndex *const index = (RowIndex *)self;
    PyTypeObject *const type = Py_TYPE(self);
    for (uint32_t n = 0; n < index->end; n++) Py_XDECREF(index->ids[n]);
    PyMem_Free(index->ids);
    PyMem_Free(index->rows);
    PyMem_Free(index->slots);
    ((freefunc)PyType_GetSlot(type, Py_tp_free))(self);
    Py_DECREF(type);
}

static PyMethodDef methods[] = {
    {"get", get, METH_O, "get(id)\n\nThe id's row; -1 where unknown."},
    {"ids", all_ids, METH_NOARGS, "ids()\n\nA list of all ids, in the order in which they came."},
    {"find", find, METH_VARARGS, "find(ids, rows)\n\nWrite the row of each id of a list into an int32 array; -1 where unknown."},
    {"update", update, METH_VARARGS, "update(ids, rows)\n\nNote the row of each id of a list, from an int32 array."},
    {NULL, NULL, 0, NULL},
};

static PyType_Slot slots[] = {
    {Py_tp_doc, "RowIndex(expected=0)\n\nThe same as `linkedout_edge.store.index.DictIndex`."},
    {Py_tp_new, create},
    {Py_tp_dealloc, dealloc},
    {Py_tp_methods, methods},
    {Py_mp_length, length},
    {Py_mp_subscript, get_item},
    {Py_mp_ass_subscript, set_item},
    {Py_sq_contains, contains},
    {0, NULL},
};

static PyType_Spec spec = {"linkedout_edge._kernel.RowIndex", sizeof(RowIndex), 0, Py_TPFLAGS_DEFAULT, slots};

int add_row_index(PyObject *module) {
    PyObject *const type = PyType_FromSpec(&spec);
    const int failed = type == NULL || PyObject_SetAttrString(module, "RowIndex", type) < 0;
    Py_XDECREF(type);
    return failed ? -1 : 0;
}
