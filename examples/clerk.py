"""A clerk's desk: a worker of a human lane, on the SDK. Ctrl-C ends it once the task in hand is through."""

from oms.worker import PermanentError, ReleaseTask, Task, Worker

clerk = Worker(lane="human_verify")  # OMS_URL, else http://oms


@clerk
def check_photo(task: Task) -> dict[str, bool | str]:
    print(f"{task.task_id} of {task.job_id}: passport {task.outputs.get('ai_extract', {}).get('passport_no', '?')}")
    verdict = input("Does the photo meet the ICAO specs? [y]es, [n]o, [l]ater: ").strip().lower()
    if task.lost:
        print("Somebody else has the task now; what you say about it is dropped.")
    if verdict.startswith("l"):
        raise ReleaseTask("the clerk put it back")
    if verdict.startswith("n"):
        raise PermanentError("the photo does not meet the specs", error_type="photo_refused")
    return {"photo_ok": True}


clerk.run()
