#!/bin/sh
# A clerk is overloaded; reassign the task to another lane. Usage: sh reroute.sh [TASK-55]
curl -X POST "${OMS_URL:-http://oms}/reroute" \
     -d '{"task_id":"'"${1:-TASK-55}"'","new_lane":"human_verify_backup"}'
