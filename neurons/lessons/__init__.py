"""What a twin heeds before its next fine-tune: its doctor's corrections and the answers that were liked.

`file` is the format, `shelf` its place in the adapter store, `book` finds what was said to a question like this one.
A lesson belongs to one twin by the UID of its DoctorTwin, from the file's first line to the prompt.
"""

from neurons.lessons.file import LessonsError, LessonsFile, Pointer, read_lessons, read_pointer, write_lessons
from neurons.lessons.lesson import Found, Kind, Lesson

__all__ = [
    "Found",
    "Kind",
    "Lesson",
    "LessonsError",
    "LessonsFile",
    "Pointer",
    "read_lessons",
    "read_pointer",
    "write_lessons",
]
